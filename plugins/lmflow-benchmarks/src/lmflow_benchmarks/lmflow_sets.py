"""The benchmark ``lmflow``: likelihood and accuracy of answers, by data set, as the original LMFlow tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_benchmarks import accuracy, likelihood
from lmflow_benchmarks.answers import Asked, last_answer, plain_text
from lmflow_benchmarks.figures import Figure, mean_of_sets, named
from lmflow_benchmarks.options import ANSWER_TYPES, LmflowOptions
from lmflow_benchmarks.set_names import MEAN, data_sets
from lmflow_core.api import BenchmarkReport, EncodedExample, LanguageModel, MeasuredSet, PromptAnswers, RequestError


@dataclass
class _Found:
    """Of a data set: all its figures, and what is kept of each example."""

    figures: dict[str, Figure] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


class LmflowBenchmark:
    """Measures data sets one by one, and their mean, in which each counts once."""

    def __init__(self, options: LmflowOptions | None = None) -> None:
        """Measure what options ask for.

        Raises:
            RequestError: they tell how answers are compared, and not that any are.
        """
        self._options = options or LmflowOptions()
        answer_type = self._options.answer_type
        if ANSWER_TYPES[answer_type] != "text" and "accuracy" not in self._options.metrics:
            raise RequestError(
                f"--answer-type {answer_type} says how answers are compared, which --metric accuracy alone does: add "
                "that, or leave out the type"
            )

    def sets(self, given: Sequence[Path]) -> dict[str, Path]:
        """Return the data sets that are named.

        Raises:
            RequestError: there are none, or some are missing.
        """
        return data_sets(given, self._options.dataset_name)

    def run(self, model: LanguageModel, data: Mapping[str, MeasuredSet], answers: PromptAnswers) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            DataError: accuracy is asked for, and an example has no prompt or no answer of the type.
        """
        metrics = self._options.metrics
        examples = {name: list(each.examples) for name, each in data.items()}
        asked: dict[str, list[Asked]] = {}
        if "accuracy" in metrics:  # before anything is computed
            answer_type = self._options.answer_type
            asked = {name: accuracy.asked_of(name, each, model, answer_type) for name, each in examples.items()}
        found = {name: _Found(rows=[*_rows(name, each, model)]) for name, each in examples.items()}
        for name, one in found.items():
            if any(metric in likelihood.TOLD for metric in metrics):
                _add_likelihood(one, model, examples[name], data[name])
            if asked:
                _add_accuracy(one, accuracy.compared(model, asked[name], answers, self._options))
        return BenchmarkReport(dict(self._figures(found)), samples=[row for one in found.values() for row in one.rows])

    def _figures(self, found: Mapping[str, _Found]) -> Iterator[tuple[str, float]]:
        for name, one in found.items():
            yield from named(name, self._told(one.figures))
        if len(found) > 1:
            every = [one.figures for one in found.values()]
            shared = [name for name in every[0] if all(name in figures for figures in every)]
            means = {name: mean_of_sets([figures[name] for figures in every]) for name in shared}
            yield from named(MEAN, self._told(means))

    def _told(self, figures: Mapping[str, Figure]) -> dict[str, Figure]:
        """Return the figures that are asked for; perplexity follows from the mean of the tokens, of sets as of one."""
        known = dict(figures)
        perplexity = known[likelihood.PER_TOKEN].exponential() if likelihood.PER_TOKEN in known else None
        if perplexity is not None:
            known[likelihood.PERPLEXITY] = perplexity
        names = [name for metric in self._options.metrics for name in likelihood.TOLD.get(metric, accuracy.TOLD)]
        return {name: known[name] for name in dict.fromkeys(names) if name in known}


def _rows(name: str, examples: Sequence[EncodedExample], model: LanguageModel) -> Iterator[dict[str, Any]]:
    for number, example in enumerate(examples):
        sequence = example.sequences[0]
        asked = last_answer(sequence, model.tokenizer)
        yield {
            "task": name,
            "id": number,
            "scores": {},
            "target": plain_text(sequence.input_ids, model.tokenizer) if asked is None else asked.answer,
            "asked": "" if asked is None else model.tokenizer.decode(asked.prompt),
        }


def _add_likelihood(found: _Found, model: LanguageModel, examples: Sequence[EncodedExample], data: MeasuredSet) -> None:
    scored = likelihood.likelihoods(model, examples, data)
    found.figures |= likelihood.figures_of(scored)
    for row, each in zip(found.rows, scored, strict=True):
        row["scores"]["nll"] = each.nll
        row |= each.told()


def _add_accuracy(found: _Found, answered: Sequence[accuracy.Compared]) -> None:
    found.figures |= accuracy.figures_of(answered)
    for row, each in zip(found.rows, answered, strict=True):
        row["scores"]["accuracy"] = float(each.is_right)
        row |= each.told()
