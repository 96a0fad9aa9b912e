"""Rank calibration of SLiC-HF (Zhao et al., arXiv:2305.10425), without a reference model."""

from __future__ import annotations

from typing import Any

from lmflow_contrib_slic.plugin import SlicOptions
from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
from lmflow_transformers.api import Batch, CausalModel, LossOutput, Mean, TorchJob, sequence_logprobs, train


class SlicLoss:
    """max(0, margin - log p(chosen) + log p(rejected)) - weight * log p(chosen), mean over pairs."""

    unit = "pairs"

    def __init__(self, options: SlicOptions) -> None:
        self._options = options

    def units(self, batch: Batch) -> int:
        """Return the number of pairs."""
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with how many pairs are in order and how far answers are apart."""
        chosen, rejected = sequence_logprobs(network, batch).view(-1, 2).unbind(1)
        margins = chosen - rejected
        calibration = (self._options.slic_margin - margins).relu() - self._options.slic_regularization * chosen
        pairs = len(margins)
        metrics = {"accuracy": Mean((margins > 0).float().sum(), pairs), "margin": Mean(margins.detach().sum(), pairs)}
        return LossOutput(calibration.sum(), metrics)


class SlicObjective:
    """Trains on pairs of answers, of which one was preferred."""

    def __init__(self, options: SlicOptions | None = None) -> None:
        self._options = options or SlicOptions()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Take any model and tuner."""

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model."""
        return train(job, SlicLoss(self._options))
