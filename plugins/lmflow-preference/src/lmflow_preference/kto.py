"""The objective ``kto`` (Ethayarajh et al., arXiv:2402.01306): answers that were found good or bad, one at a time."""

from __future__ import annotations

import dataclasses
from itertools import chain
from statistics import fmean
from typing import Any

import torch

from lmflow_core.api import EncodedExample, TrainingReport
from lmflow_preference.comparing import ComparingObjective
from lmflow_preference.examples import REFERENCE, verdicts_of
from lmflow_preference.options import KtoOptions
from lmflow_preference.reference import reference_logprobs
from lmflow_transformers.api import (
    Batch,
    LossOutput,
    Mean,
    TorchJob,
    measure_sequences,
    sequence_logprobs,
    train,
)

DESIRABLE, DIVERGENCE = "desirable", "kl"


def kto_losses(gains: torch.Tensor, desirable: torch.Tensor, kl: torch.Tensor, options: KtoOptions) -> torch.Tensor:
    """Return what each answer costs.

    Args:
        gains: (answers,), how much likelier each is than it was to the reference, in nats.
        desirable: (answers,), bool.
        kl: how far the model is from the reference, in nats, not below 0.
        options: of the objective.
    """
    signs = torch.where(desirable, 1.0, -1.0)
    weights = torch.where(desirable, options.kto_desirable_weight, options.kto_undesirable_weight)
    return weights * (1 - torch.sigmoid(options.preference_beta * signs * (gains - kl)))


class KtoLoss:
    """The mean over answers of :func:`kto_losses`; each example brings its verdict and its batch's divergence."""

    unit = "answers"

    def __init__(self, options: KtoOptions) -> None:
        self._options = options

    def units(self, batch: Batch) -> int:
        """Return the number of answers."""
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with metrics by the names that TRL gives them."""
        logprobs = sequence_logprobs(network, batch)
        gains = logprobs - batch.numbers[REFERENCE]
        good, kl = batch.numbers[DESIRABLE] > 0, batch.numbers[DIVERGENCE]
        losses = kto_losses(gains, good, kl, self._options)
        metrics = {DIVERGENCE: Mean(kl.sum(), len(kl))}
        for name, those in (("chosen", good), ("rejected", ~good)):
            rewards = self._options.preference_beta * gains.detach()
            metrics[f"rewards/{name}"] = Mean(rewards[those].sum(), those.sum())
            metrics[f"logps/{name}"] = Mean(logprobs.detach()[those].sum(), those.sum())
        return LossOutput(losses.sum(), metrics)


class Divergence:
    """Measures, before each step, how far the model is from the reference: by answers to other prompts.

    Of each example its second sequence is measured and left behind; the first is trained on.
    """

    steps = 1

    def __init__(self, job: TorchJob) -> None:
        self._job = job

    def __call__(self, examples: list[EncodedExample], step: int | None) -> list[EncodedExample]:
        """Return the answers to train on, each with the divergence over the batch in all processes."""
        mine = [(EncodedExample(example.sequences[1:]), example.numbers[REFERENCE][1]) for example in examples]
        others = [*chain.from_iterable(self._job.services.all_gather(mine))]
        measured = measure_sequences(self._job, [example for example, _ in others], sequence_logprobs)
        gains = [now - before for (now,), (_, before) in zip(measured, others, strict=True)]
        kl = max(0.0, fmean(gains)) if gains else 0.0
        return [_with_divergence(example, kl) for example in examples]


def _with_divergence(example: EncodedExample, kl: float) -> EncodedExample:
    numbers = {
        DESIRABLE: example.numbers[DESIRABLE],
        REFERENCE: example.numbers[REFERENCE][:1],
        DIVERGENCE: (kl,),
    }
    return EncodedExample(example.sequences[:1], numbers)


class KtoObjective(ComparingObjective[KtoOptions]):
    """Trains on answers with a verdict."""

    defaults = KtoOptions

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model.

        Raises:
            DataError: no answer teaches anything.
        """
        longest, told = self._options.max_prompt_length, job.world.is_main
        data = [verdicts_of(part, longest, told=told) for part in (job.data, job.validation) if part is not None]
        logprobs = reference_logprobs(job, self._options.reference_model, data)
        data = [dataclasses.replace(part, reference=known) for part, known in zip(data, logprobs, strict=True)]
        validation = data[1] if job.validation is not None else None
        job = dataclasses.replace(job, data=data[0], validation=validation)
        return train(job, KtoLoss(self._options), Divergence(job))
