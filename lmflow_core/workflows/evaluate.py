"""Evaluation: the negative log-likelihood of data under a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmflow_core import console
from lmflow_core.data.dataset import DatasetMaker
from lmflow_core.job import Request
from lmflow_core.opening import open_model
from lmflow_core.registry import Catalogue
from lmflow_core.settings import DataSettings, ModelSettings


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
    opened = open_model(request.get(ModelSettings), catalogue)
    rows = DatasetMaker(data, opened, catalogue, purpose="measure").make().rows
    scores = list(console.progress(opened.load().score(rows), "Evaluating", len(rows)))
    tokens = sum(score.tokens for score in scores)
    mean = math.fsum(score.nll for score in scores) / tokens
    return Evaluation(mean, math.exp(mean) if mean < 700 else math.inf, tokens, len(rows))
