"""The objective ``dpo``: of two answers to a prompt the chosen one is to be the likelier."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from lmflow_core.api import TrainingReport
from lmflow_preference.comparing import ComparingObjective
from lmflow_preference.examples import REFERENCE, pairs_of
from lmflow_preference.options import WITHOUT_REFERENCE, DpoOptions
from lmflow_preference.pair_losses import PAIR_LOSSES, Answers, reward
from lmflow_preference.reference import reference_logprobs
from lmflow_transformers.api import Batch, LossOutput, Mean, TorchJob, sequence_logprobs, train


class DpoLoss:
    """The mean over pairs of one of the losses of ``pair_losses``; batches hold pairs, the chosen answer first."""

    unit = "pairs"

    def __init__(self, options: DpoOptions) -> None:
        self._options = options

    def units(self, batch: Batch) -> int:
        """Return the number of pairs."""
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with metrics by the names that TRL gives them."""
        options, logprobs = self._options, sequence_logprobs(network, batch)
        if not batch.counts:  # nobody's, and perhaps no pairs
            return LossOutput(logprobs.sum())
        chosen, rejected = _answers(logprobs, batch)
        losses = PAIR_LOSSES[options.dpo_loss](chosen, rejected, options)
        with torch.no_grad():
            metrics = _metrics(chosen, rejected, options)
        return LossOutput(losses.sum(), {name: Mean(values.sum(), len(values)) for name, values in metrics.items()})


def _answers(logprobs: torch.Tensor, batch: Batch) -> tuple[Answers, Answers]:
    reference = batch.numbers.get(REFERENCE, torch.zeros_like(logprobs))
    parts = (values.view(-1, 2).unbind(1) for values in (logprobs, batch.labels_per_sequence, reference))
    chosen, rejected = zip(*parts, strict=True)
    return Answers(*chosen), Answers(*rejected)


def _metrics(chosen: Answers, rejected: Answers, options: DpoOptions) -> dict[str, torch.Tensor]:
    better, worse = reward(chosen, options), reward(rejected, options)
    by_token = options.dpo_loss in WITHOUT_REFERENCE
    return {
        "rewards/chosen": better,
        "rewards/rejected": worse,
        "rewards/accuracies": (better > worse).float(),
        "rewards/margins": better - worse,
        "logps/chosen": chosen.mean if by_token else chosen.logprobs,
        "logps/rejected": rejected.mean if by_token else rejected.logprobs,
    }


class DpoObjective(ComparingObjective[DpoOptions]):
    """Trains on pairs of answers, of which one was preferred."""

    defaults = DpoOptions

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model.

        Raises:
            DataError: no pair teaches anything.
        """
        options, seed, told = self._options, job.settings.seed, job.world.is_main
        data = [pairs_of(part, options, seed, told=told) for part in (job.data, job.validation) if part is not None]
        if options.dpo_loss not in WITHOUT_REFERENCE:
            logprobs = reference_logprobs(job, options.reference_model, data)
            data = [dataclasses.replace(part, reference=known) for part, known in zip(data, logprobs, strict=True)]
        validation = data[1] if job.validation is not None else None
        return train(dataclasses.replace(job, data=data[0], validation=validation), DpoLoss(options))
