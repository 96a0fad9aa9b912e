"""Benchmarks: measurements of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.model import PREDICTING, LanguageModel
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.contracts.tokens import EncodedDataset, EncodedSequence


@dataclass(frozen=True)
class Grid:
    """Values between 0 and 1 on a grid, to be shown as a picture. ``values`` are row by row, as ``rows`` names them."""

    title: str
    column_label: str
    columns: tuple[str, ...]
    row_label: str
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class BenchmarkReport:
    """What a benchmark found: figures by name and, where it draws one, a grid.

    ``samples`` are what the figures were computed from, a row for each question: values that JSON can say.
    """

    metrics: Mapping[str, float]
    grid: Grid | None = None
    samples: Sequence[Mapping[str, Any]] = ()


class PromptAnswers(Protocol):
    """Writes what a model answers to prompts, by the decoder that it is used with when none is chosen."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stops: Sequence[str] = (),
        seed: int = 42,
        options: Mapping[str, object] | None = None,
    ) -> list[GeneratedAnswer]:
        """Return an answer to each prompt, which does not depend on the others.

        Args:
            prompts: token ids.
            max_new_tokens: longest answer; one ends where the context does.
            stops: texts that end an answer, beside the model's own end token.
            seed: of random choices, of which each prompt has its own.
            options: values for options of the decoder, by name; by itself it takes the likeliest tokens.

        Raises:
            PromptTooLongError: a prompt leaves no room in the context for a token.
            LmflowError: the decoder has no such option, or cannot drive the model.
        """


class Benchmark(Protocol):
    """Target of a ``BenchmarkSpec`` that brings its own data."""

    def run(self, model: LanguageModel) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: the model cannot be measured so.
        """


class DataBenchmark(Protocol):
    """Target of a ``BenchmarkSpec`` with ``examples``: it measures on the data of ``--dataset``."""

    def run(self, model: LanguageModel, data: EncodedDataset) -> BenchmarkReport:
        """Measure a loaded model on examples that were encoded for it.

        Raises:
            RequestError: the model cannot be measured so.
            DataError: the examples are none that it can be measured on.
        """


class AnsweringBenchmark(Protocol):
    """Target of a ``BenchmarkSpec`` with ``answers``: it brings its own data, and may let the model answer."""

    def run(self, model: LanguageModel, answers: PromptAnswers) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: the model cannot be measured so.
        """


@dataclass(frozen=True)
class MeasuredSet:
    """A data set that is measured by itself.

    Attributes:
        examples: encoded for the model.
        windows: gives, for a sequence, the windows of ``--context`` and ``--stride``, with which it may be longer than
            the model's context: each of its labels is in one of them. Without these flags it gives the sequence.
    """

    examples: EncodedDataset
    windows: Callable[[EncodedSequence], Iterable[EncodedSequence]]


class SetsBenchmark(Protocol):
    """Target of a ``BenchmarkSpec`` with ``examples`` and ``answers``: it measures data sets, each by itself."""

    def sets(self, given: Sequence[Path]) -> Mapping[str, Path]:
        """Return the data sets that are measured, by the names their figures have; nothing of them is read yet.

        Args:
            given: what ``--dataset`` names; nothing when it is left out.

        Raises:
            RequestError: there are none, or one is missing.
        """

    def run(self, model: LanguageModel, data: Mapping[str, MeasuredSet], answers: PromptAnswers) -> BenchmarkReport:
        """Measure a loaded model on the data sets that :meth:`sets` named.

        Raises:
            RequestError: the model cannot be measured so.
            DataError: the examples are none that it can be measured on.
        """


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A measurement of a model; ``target(options)`` satisfies ``Benchmark``.

    With ``examples`` it satisfies ``DataBenchmark`` instead, with ``answers`` ``AnsweringBenchmark``, and with both
    ``SetsBenchmark``.

    Attributes:
        ``examples``: the kinds of example it measures on, from ``--dataset``; none for one that brings its own data.
        ``answers``: it is given what writes answers of the model.
        ``tasks``: those of a load plan whose models it measures.

    Example::

        @hookimpl
        def lmflow_register_benchmarks():
            yield BenchmarkSpec(
                name="spelling", target="lmflow_spelling.benchmark:Spelling", summary="Words spelt right."
            )
    """

    kind: ClassVar[str] = "benchmark"
    contract: ClassVar[type | None] = Benchmark
    selector: ClassVar[Selector | None] = Selector(
        "benchmark", "What is measured; the likelihood of the data when left out.", {"evaluate": None}
    )
    examples: tuple[str, ...] = ()
    answers: bool = False
    tasks: tuple[str, ...] = PREDICTING

    def contracts(self) -> tuple[type, ...]:
        """Return what the target satisfies: it is given data where it measures on examples."""
        if self.examples and self.answers:
            return (SetsBenchmark,)
        if self.examples:
            return (DataBenchmark,)
        return (AnsweringBenchmark if self.answers else Benchmark,)
