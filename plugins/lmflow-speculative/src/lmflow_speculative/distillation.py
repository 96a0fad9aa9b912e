"""The objective ``distillation``: learn the distribution of another model (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from lmflow_core.api import IGNORE, ModelError, OptionError, TrainingJob, TrainingReport, Tuner
from lmflow_speculative.divergence import chunked_divergence
from lmflow_speculative.draft_tuner import DraftTuner
from lmflow_speculative.networks import check_vocabulary, opened_model
from lmflow_speculative.options import DistillationOptions
from lmflow_transformers.api import CausalModel, Head, head_is_plain, keeps_apart, train_with_trainer, using_attention


class DistillationObjective:
    """Trains a model towards the distribution of a teacher at the labelled positions."""

    def __init__(self, options: DistillationOptions | None = None) -> None:
        self._options = options or DistillationOptions()

    def check(self, model: CausalModel, tuner: Tuner) -> None:
        """Check that there is a teacher and that it means the same by each id.

        Raises:
            OptionError: no teacher is named, and the tuner does not cut one.
            ModelError: the teacher cannot be opened, or has another vocabulary.
        """
        if self._options.teacher is not None:
            check_vocabulary(model, self._named(self._options.teacher, model), "--teacher")
        elif not isinstance(tuner, DraftTuner):
            raise OptionError(
                "--objective distillation needs --teacher REF, the model to learn from; with --tuner draft it is the "
                "model itself"
            )

    def train(self, job: TrainingJob) -> TrainingReport:
        """Train with the mean divergence from the teacher over the labelled positions of each optimizer step.

        Raises:
            ModelError: logits of the model or of its teacher cannot be made apart from their hidden states, or packed
                examples reach each other in the teacher.
        """
        model: Any = job.model
        self.check(model, job.tuner)
        teacher = self._teacher(model, job.tuner)
        if not keeps_apart(teacher, job.attention):
            kind = teacher.config.model_type
            raise ModelError(f"--objective distillation: packed examples reach each other in a {kind} teacher")
        with using_attention(teacher, job.attention), distilled_forward(model.base, teacher, self._options.loss_chunk):
            return train_with_trainer(job)

    def _named(self, reference: str, model: CausalModel) -> CausalModel:
        return opened_model(reference, str(model.device), str(model.dtype).removeprefix("torch."))

    def _teacher(self, model: CausalModel, tuner: Any) -> Any:
        """Return the network to learn from; that there is one was checked."""
        if self._options.teacher is None:
            return tuner.whole
        teacher = self._named(self._options.teacher, model)
        teacher.load()
        return teacher.base


@contextmanager
def distilled_forward(network: Any, teacher: Any, chunk: int) -> Iterator[None]:
    """For the time of the context, let ``network(…, shift_labels=…)`` return the divergence from its teacher.

    The loss is summed and divided by ``num_items_in_batch``.

    Args:
        network: the transformers model that learns.
        teacher: the transformers model that is learned from; it is not changed.
        chunk: positions whose logits exist at a time.

    Raises:
        ModelError: logits of one of them are more than those of its head.
    """
    for each in (network, teacher):
        if not head_is_plain(each):
            raise ModelError(f"--objective distillation: the logits of a {each.config.model_type} model are not plain")
    original = network.forward

    def forward(
        *args: Any, shift_labels: torch.Tensor | None = None, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        if shift_labels is None:
            return original(*args, **kwargs)
        kwargs.pop("labels", None)
        labelled = shift_labels != IGNORE
        with torch.no_grad():
            wanted = teacher.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state[labelled]
        hidden = network.get_decoder()(*args, use_cache=False, **kwargs).last_hidden_state[labelled]
        total = chunked_divergence(hidden, wanted, *_for_the_same_tokens(Head.of(network), Head.of(teacher)), chunk)
        return {"loss": total / (labelled.sum() if num_items_in_batch is None else num_items_in_batch)}

    network.forward = forward
    try:
        yield
    finally:
        del network.forward


def _for_the_same_tokens(*heads: Head) -> list[Head]:
    """Return heads without the rows that only some have: many models have rows that stand for no token."""
    size = min(len(head.weight) for head in heads)
    return [
        replace(head, weight=head.weight[:size], bias=None if head.bias is None else head.bias[:size]) for head in heads
    ]
