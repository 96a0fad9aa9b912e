"""Options of the benchmarks; no import of anything heavy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """How questions are asked, whatever runs the tasks."""

    num_fewshot: int | None = option(
        None, help="Examples before each question; what the task says when left out.", minimum=0
    )
    limit: int | None = option(None, help="Ask only this many questions of each task.", minimum=1)
    apply_chat_template: bool = option(False, help="Ask by the model's own chat template.")
    fewshot_as_multiturn: bool = option(
        True, help="With the chat template, show each example as a turn of its own instead of all in the question."
    )
    system_instruction: str | None = option(None, help="System prompt of every question.")
    fewshot_seed: int = option(1234, help="Seed by which tasks choose examples; 1234 is the harness's own.", minimum=0)

    def examples(self, own: int | None) -> int:
        """Return how many examples a task shows that says ``own`` by itself; one that says 0 shows none in any case."""
        return own or 0 if self.num_fewshot is None or own == 0 else self.num_fewshot


@dataclass(frozen=True, kw_only=True)
class HarnessOptions(QuestionOptions):
    """Which tasks of lm-evaluation-harness are run, and how they are asked."""

    tasks: tuple[str, ...] = option((), help="Tasks, groups or tags of lm-evaluation-harness; several with commas.")
    include_path: Path | None = option(None, help="Folder of YAML files with tasks of your own.")
    answer_seed: int = option(42, help="Seed of answers that a task has sampled.", minimum=0, maximum=2**32 - 1)


# The original LMFlow has two names for each figure.
_METRICS = {
    "nll": "nll",
    "neg_log_likelihood": "nll",
    "ppl": "ppl",
    "perplexity": "ppl",
    "accuracy": "accuracy",
    "acc": "accuracy",
}
# What is found in answers, by the type that names it; the types are those of the original LMFlow.
ANSWER_TYPES = {
    **dict.fromkeys(("text", "text2text"), "text"),
    **dict.fromkeys(("math", "gsm8k", "svamp", "asdiv", "addsub", "singleeq", "multiarith"), "number"),
    **dict.fromkeys(("aqua", "csqa", "multiple_choice"), "last letter"),
    **dict.fromkeys(("medmcqa", "usmle"), "first letter"),
    **dict.fromkeys(("strategyqa", "coin_flip"), "last yes or no"),
    **dict.fromkeys(("pubmedqa", "binary_choice"), "first yes, no or maybe"),
    "last_letters": "letters",
}


@dataclass(frozen=True, kw_only=True)
class LmflowOptions:
    """What is measured on which data sets, and how answers are asked for and compared."""

    metric: tuple[str, ...] = option(
        ("nll",),
        help="Figures, several with commas: nll and ppl of the data's answers, accuracy of the model's own.",
        choices=tuple(_METRICS),
    )
    answer_type: str = option(
        "text", help="What is compared of an answer, for --metric accuracy: " + ", ".join(ANSWER_TYPES) + "."
    )
    dataset_name: tuple[str, ...] = option(
        (), help="Folders in --dataset (data when left out), or groups of them; several with commas."
    )
    max_new_tokens: int = option(100, help="Longest answer in tokens.", minimum=1)
    temperature: float = option(0.0, help="Temperature of answers; 0 takes the likeliest token.", minimum=0)
    repetition_penalty: float = option(1.0, help="Penalty on the tokens there are already.", above=0)
    answer_seed: int = option(42, help="Seed of answers that are sampled.", minimum=0, maximum=2**32 - 1)

    def __post_init__(self) -> None:
        if self.answer_type not in ANSWER_TYPES:
            near = difflib.get_close_matches(self.answer_type, ANSWER_TYPES, 3)
            told = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ANSWER_TYPES)}"
            raise ValueError(f"--answer-type {self.answer_type} is not known: {told}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The figures by the first of their names: ``nll``, ``ppl``, ``accuracy``."""
        return tuple(dict.fromkeys(_METRICS[name] for name in self.metric))


@dataclass(frozen=True, kw_only=True)
class TaskOptions(QuestionOptions):
    """Which tasks of your own are run, and how they are asked."""

    task_file: tuple[Path, ...] = option((), help="YAML or JSON files, each with a task; several with commas.")
