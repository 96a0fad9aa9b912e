"""Evaluation: the negative log-likelihood of data under a model, or a benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.benchmark import BenchmarkReport, BenchmarkSpec
from lmflow_core.contracts.settings import DataSettings, EvaluationDataSettings, EvaluationSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.data.dataset import DatasetMaker
from lmflow_core.errors import OptionError
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.models.tasks import check_predicts, check_task
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned
from lmflow_core.report import console
from lmflow_core.workflows.decoder_answers import DecoderAnswers
from lmflow_core.workflows.measured_sets import chosen_windows, measured_sets


@dataclass(frozen=True)
class Evaluation:
    """``nll_per_token`` is in nats, over the ``tokens`` that carry a label; ``perplexity`` is its exponential."""

    nll_per_token: float
    perplexity: float
    tokens: int
    examples: int


def evaluate(request: Request, catalogue: Catalogue) -> Evaluation:
    """Score every example of the data, token-weighted.

    Raises:
        LmflowError: the data or the model cannot be used.
    """
    data = request.get(DataSettings)
    if not data.dataset:
        raise OptionError("--dataset is required: Data file or folder; several with commas.")
    opened = _open(request, catalogue)
    check_predicts(opened.model, "the likelihood of data")
    cut = chosen_windows(request.get(EvaluationSettings), opened.model)
    rows = DatasetMaker(data, opened, catalogue, purpose="measure", whole=cut is not None).make().rows
    scored: Iterable[EncodedSequence] = rows.sequences() if cut is None else cut(rows.sequences())
    count = len(rows) if cut is None else None
    scores = list(console.progress(opened.load().score(scored), "Evaluating", count))
    tokens = sum(score.tokens for score in scores)
    mean = math.fsum(score.nll for score in scores) / tokens
    return Evaluation(mean, math.exp(mean) if mean < 700 else math.inf, tokens, len(rows))


def _open(request: Request, catalogue: Catalogue) -> OpenModel:
    chosen = request.components
    return open_model(
        request.get(ModelSettings),
        catalogue,
        scaling=chosen.get("position_scaling"),
        attention=chosen.get("attention"),
    )


def run_benchmark(request: Request, catalogue: Catalogue) -> BenchmarkReport:
    """Run the benchmark that a request chooses.

    Raises:
        LmflowError: the model cannot be used, or not be measured so.
    """
    chosen = request.components["benchmark"]
    spec: BenchmarkSpec = chosen.provided.spec
    _check_benchmark(request, chosen.name, spec)
    opened = _open(request, catalogue)
    check_task(opened.model, spec.tasks, f"--benchmark {chosen.name}")
    benchmark: Any = chosen.make(catalogue)
    given: list[object] = []
    if spec.examples and spec.answers:
        sets = _sets(benchmark, request.get(DataSettings))
        cut = chosen_windows(request.get(EvaluationSettings), opened.model)
        given.append(measured_sets(sets, request.get(DataSettings), spec.examples, cut, opened, catalogue))
    elif spec.examples:
        maker = DatasetMaker(request.get(DataSettings), opened, catalogue, accepted=spec.examples, purpose="measure")
        given.append(maker.make().rows)
    if spec.answers:
        given.append(DecoderAnswers(opened, catalogue))
    report: BenchmarkReport = returned(benchmark.run(opened.load(), *given), BenchmarkReport, benchmark, "run")
    return report


def _check_benchmark(request: Request, name: str, spec: BenchmarkSpec) -> None:
    """Check that a benchmark is given what it measures on, and nothing that it does not look at."""
    settings, data = request.get(EvaluationSettings), request.get(EvaluationDataSettings)
    if spec.examples and not spec.answers and not data.dataset:
        raise OptionError(f"--benchmark {name} measures on data: add --dataset")
    if not (spec.examples and spec.answers) and (settings.context is not None or settings.stride is not None):
        raise OptionError(f"--context and --stride are for the likelihood of data, not for --benchmark {name}")
    if not spec.examples and data.prompt_structure is not None:
        raise OptionError(f"--prompt-structure is for data, and --benchmark {name} brings its own")


def _sets(benchmark: Any, data: DataSettings) -> Mapping[str, Path]:
    sets: Mapping[str, Path] = returned(benchmark.sets(data.dataset), Mapping, benchmark, "sets")
    return sets
