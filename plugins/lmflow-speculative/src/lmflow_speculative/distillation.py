"""The objective ``distillation``: learn the distribution of another model (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lmflow_core.api import JobServices, LoadPlan, ModelError, OptionError, TrainingReport, TrainingSetup
from lmflow_speculative.divergence import chunked_divergence
from lmflow_speculative.draft_tuner import DraftTuner
from lmflow_speculative.options import DistillationOptions
from lmflow_transformers.api import (
    Batch,
    CausalModel,
    Head,
    LossOutput,
    TorchJob,
    check_vocabulary,
    head_is_plain,
    hidden_states,
    isolates_sequences,
    train,
    using_attention,
)


class DistillationLoss:
    """The mean divergence from a teacher over the labelled positions.

    Args:
        teacher: the transformers model that is learned from; it is not changed.
        chunk: positions whose logits exist at a time.
    """

    unit = "tokens"

    def __init__(self, teacher: Any, chunk: int) -> None:
        self._teacher = teacher
        self._chunk = chunk

    def units(self, batch: Batch) -> int:
        """Return the number of labelled positions."""
        return int(batch.labelled.sum())

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed divergence, in nats."""
        labelled = batch.labelled
        with torch.no_grad():
            wanted = hidden_states(self._teacher, batch, labelled)
        hidden = hidden_states(network, batch, labelled)
        heads = _for_the_same_tokens(Head.of(network), Head.of(self._teacher))
        return LossOutput(chunked_divergence(hidden, wanted, *heads, self._chunk))


class DistillationObjective:
    """Trains a model towards the distribution of a teacher at the labelled positions."""

    def __init__(self, options: DistillationOptions | None = None) -> None:
        self._options = options or DistillationOptions()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Check that there is a teacher and that it means the same by each id.

        Raises:
            OptionError: no teacher is named, and the tuner does not cut one.
            ModelError: the teacher cannot be opened, or has another vocabulary.
        """
        if self._options.teacher is not None:
            teacher = _opened(self._options.teacher, setup.model, setup.services)
            check_vocabulary(setup.model, teacher, "--teacher")
        elif not isinstance(setup.tuner, DraftTuner):
            raise OptionError(
                "--objective distillation needs --teacher REF, the model to learn from; with --tuner draft it is the "
                "model itself"
            )

    def train(self, job: TorchJob) -> TrainingReport:
        """Train with the mean divergence from the teacher over the labelled positions of each optimizer step.

        Raises:
            ModelError: logits of the model or of its teacher are more than the head makes of hidden states, or packed
                sequences reach each other in the teacher.
        """
        self.check(job)
        teacher = self._teacher(job)
        if not isolates_sequences(teacher, job.attention):
            kind = teacher.config.model_type
            raise ModelError(f"--objective distillation: packed sequences reach each other in a {kind} teacher")
        for network in (job.model.base, teacher):
            if not head_is_plain(network):
                kind = network.config.model_type
                raise ModelError(f"--objective distillation: the logits of a {kind} model are not plain")
        with using_attention(teacher, job.attention):
            return train(job, DistillationLoss(teacher, self._options.loss_chunk))

    def _teacher(self, job: TorchJob) -> Any:
        """Return the network to learn from; that there is one was checked."""
        if self._options.teacher is None:
            assert isinstance(job.tuner, DraftTuner)
            return job.tuner.whole
        teacher = _opened(self._options.teacher, job.model, job.services)
        teacher.load()
        return teacher.base


def _opened(reference: str, model: CausalModel, services: JobServices) -> CausalModel:
    teacher = services.open_model(reference, beside=model)
    if not isinstance(teacher, CausalModel):
        raise ModelError(f"--teacher {reference} does not run in torch: choose a model that does")
    return teacher


def _for_the_same_tokens(*heads: Head) -> list[Head]:
    """Return heads without the rows that only some have: many models have rows that stand for no token."""
    size = min(len(head.weight) for head in heads)
    return [
        replace(head, weight=head.weight[:size], bias=None if head.bias is None else head.bias[:size]) for head in heads
    ]
