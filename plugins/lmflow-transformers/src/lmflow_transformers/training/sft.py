"""The objective ``sft``: predict the labelled tokens."""

from __future__ import annotations

from typing import Any

from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
from lmflow_transformers.batches import Batch
from lmflow_transformers.likelihood.network import summed_cross_entropy
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SftOptions
from lmflow_transformers.training.loss import LossOutput
from lmflow_transformers.training.run import TorchJob, train


class SftLoss:
    """The mean cross-entropy over the labelled tokens."""

    unit = "tokens"

    def __init__(self, chunk: int) -> None:
        """Compute the logits of so many positions at a time."""
        self._chunk = chunk

    def units(self, batch: Batch) -> int:
        """Return the number of labelled tokens."""
        return int(batch.labelled.sum())

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed cross-entropy, in nats."""
        return LossOutput(summed_cross_entropy(network, batch, self._chunk))


class SftObjective:
    """Supervised fine-tuning."""

    def __init__(self, options: SftOptions | None = None) -> None:
        self._options = options or SftOptions()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights: any network that predicts tokens will do."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Take any model and tuner."""

    def loss(self) -> SftLoss:
        """Return what is learned; a plan of a run needs no more."""
        return SftLoss(self._options.loss_chunk)

    def train(self, job: TorchJob) -> TrainingReport:
        """Train with the mean cross-entropy over the labelled tokens of each optimizer step."""
        return train(job, self.loss())
