"""The objective ``sft``: predict the labelled tokens."""

from __future__ import annotations

from lmflow_core.api import TrainingJob, TrainingReport
from lmflow_transformers.loss import label_only_forward
from lmflow_transformers.options import SftOptions
from lmflow_transformers.training.trainer import train_with_trainer


class SftObjective:
    """Supervised fine-tuning."""

    def __init__(self, options: SftOptions | None = None) -> None:
        self._options = options or SftOptions()

    def train(self, job: TrainingJob) -> TrainingReport:
        """Train with the mean cross-entropy over the labelled tokens of each optimizer step."""
        with label_only_forward(job.model.base, self._options.loss_chunk):  # type: ignore[attr-defined]
            return train_with_trainer(job)
