"""Benchmarks: measurements of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.model import PREDICTING, LanguageModel
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.contracts.tokens import EncodedDataset


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
    """What a benchmark found: figures by name and, where it draws one, a grid."""

    metrics: Mapping[str, float]
    grid: Grid | None = None


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


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A measurement of a model; ``target(options)`` satisfies ``Benchmark``, or ``DataBenchmark`` with ``examples``.

    Attributes:
        ``examples``: the kinds of example it measures on, from ``--dataset``; none for one that brings its own data.
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
    tasks: tuple[str, ...] = PREDICTING

    def contracts(self) -> tuple[type, ...]:
        """Return what the target satisfies: it is given data where it measures on examples."""
        return (DataBenchmark if self.examples else Benchmark,)
