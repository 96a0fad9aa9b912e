"""Evaluation: the negative log-likelihood of data under a model, or a benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.benchmark import BenchmarkReport, BenchmarkSpec
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DataSettings, EvaluationSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.data.dataset import DatasetMaker
from lmflow_core.errors import OptionError
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.models.tasks import check_predicts, check_task
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned
from lmflow_core.report import console
from lmflow_core.workflows.decoder_answers import DecoderAnswers
from lmflow_core.workflows.windows import windows


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
    data, settings = request.get(DataSettings), request.get(EvaluationSettings)
    if not data.dataset:
        raise OptionError("--dataset is required: Data file or folder; several with commas.")
    opened = _open(request, catalogue)
    check_predicts(opened.model, "the likelihood of data")
    whole = settings.context is not None
    rows = DatasetMaker(data, opened, catalogue, purpose="measure", whole=whole).make().rows
    scored: Iterable[EncodedSequence] = (
        _windows(rows.sequences(), settings, opened.model) if whole else rows.sequences()
    )
    scores = list(console.progress(opened.load().score(scored), "Evaluating", None if whole else len(rows)))
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


def _windows(
    rows: Iterable[EncodedSequence], settings: EvaluationSettings, model: LanguageModel
) -> Iterator[EncodedSequence]:
    context = settings.context or 0
    if model.context_length is not None and context > model.context_length:
        console.note(f"--context {context}: the model was made for {model.context_length} tokens")
    return windows(rows, context, settings.stride or max(1, context // 2))


def run_benchmark(request: Request, catalogue: Catalogue) -> BenchmarkReport:
    """Run the benchmark that a request chooses.

    Raises:
        LmflowError: the model cannot be used, or not be measured so.
    """
    chosen = request.components["benchmark"]
    spec: BenchmarkSpec = chosen.provided.spec
    data = request.get(DataSettings)
    if spec.examples and not data.dataset:
        raise OptionError(f"--benchmark {chosen.name} measures on data: add --dataset")
    opened = _open(request, catalogue)
    check_task(opened.model, spec.tasks, f"--benchmark {chosen.name}")
    benchmark: Any = chosen.make(catalogue)
    given: list[object] = []
    if spec.examples:
        given.append(DatasetMaker(data, opened, catalogue, accepted=spec.examples, purpose="measure").make().rows)
    elif spec.answers:
        given.append(DecoderAnswers(opened, catalogue))
    report: BenchmarkReport = returned(benchmark.run(opened.load(), *given), BenchmarkReport, benchmark, "run")
    return report
