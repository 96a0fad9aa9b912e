"""Benchmarks: measurements of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.spec import Selector, Spec


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
    """Target of a ``BenchmarkSpec``."""

    def run(self, model: LanguageModel) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: the model cannot be measured so.
        """


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(Spec):
    """A measurement of a model; ``target(options)`` satisfies ``Benchmark``.

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
