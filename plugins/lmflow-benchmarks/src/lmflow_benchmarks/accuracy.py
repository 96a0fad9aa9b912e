"""How often what a model answers is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmflow_benchmarks.answers import Asked, last_answer, plain_text
from lmflow_benchmarks.extraction import found_in
from lmflow_benchmarks.figures import Figure, mean
from lmflow_benchmarks.options import LmflowOptions
from lmflow_core.api import DataError, EncodedExample, LanguageModel, PromptAnswers, printable

ACCURACY, SILENT = TOLD = ("accuracy", "without answer")
# Values by which a decoder does nothing; it may have no such option then.
_PLAIN = {"temperature": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class Compared:
    """The text of an answer beside that of the right one, and what each says; None where it says nothing."""

    written: str
    found: str | None
    right: str

    @property
    def is_right(self) -> bool:
        """Whether both say the same."""
        return self.found == self.right

    def told(self) -> dict[str, Any]:
        """Return what is kept of it."""
        return {"found": {"text": self.written, "answer": self.found}, "right": self.right}


def asked_of(name: str, examples: Sequence[EncodedExample], model: LanguageModel, answer_type: str) -> list[Asked]:
    """Return the prompt and the right answer of each example.

    Raises:
        DataError: one has no prompt or no such answer, or its prompt leaves no room in the context.
    """
    asked = []
    for number, example in enumerate(examples):
        one = last_answer(example.sequences[0], model.tokenizer)
        if one is None:
            raise DataError(
                f"{name}, example {number}: it has no prompt to answer, so --metric accuracy cannot measure it: give "
                "rows of a prompt and its answer, or conversations"
            )
        if model.context_length is not None and len(one.prompt) >= model.context_length:
            raise DataError(
                f"{name}, example {number}: its prompt has {len(one.prompt)} tokens, which leave no room for an answer "
                f"in the context of {model.context_length}"
            )
        if found_in(one.answer, answer_type) is None:
            raise DataError(
                f"{name}, example {number}: its answer {printable(one.answer, 60)!r} is none of --answer-type "
                f"{answer_type}: give the type of this data's answers"
            )
        asked.append(one)
    return asked


def compared(
    model: LanguageModel, asked: Sequence[Asked], answers: PromptAnswers, options: LmflowOptions
) -> list[Compared]:
    """Return what the model answers, beside what is right; control tokens of either are no part of the answer."""
    sampling = {"temperature": options.temperature, "repetition_penalty": options.repetition_penalty}
    written = answers(
        [one.prompt for one in asked],
        max_new_tokens=options.max_new_tokens,
        seed=options.answer_seed,
        options={name: value for name, value in sampling.items() if value != _PLAIN[name]},
    )
    found = []
    for one, answer in zip(asked, written, strict=True):
        text = plain_text(answer.ids, model.tokenizer)
        right = found_in(one.answer, options.answer_type)
        assert right is not None, one
        found.append(Compared(text, found_in(text, options.answer_type), right))
    return found


def figures_of(found: Sequence[Compared]) -> dict[str, Figure]:
    """Return the share of right answers, and of those that say nothing of the kind that is looked for."""
    return {
        ACCURACY: mean([float(one.is_right) for one in found]),
        SILENT: mean([float(one.found is None) for one in found]),
    }
