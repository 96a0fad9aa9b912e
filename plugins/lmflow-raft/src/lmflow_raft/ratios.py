"""The loss of what goes on from RAFT: clipped ratios of probabilities, times the advantage of an answer."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_core.api import EncodedExample
from lmflow_raft.options import RaftOptions
from lmflow_transformers.api import Batch, LossOutput, Mean, Measurement, TorchJob, labelled_logprobs, measure_tokens

ADVANTAGE, OLD, REWARD = "advantage", "old_logprobs", "reward"


def clipped_gains(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, options: RaftOptions
) -> torch.Tensor:
    """Return what each token gains, min(s A, clip(s, 1 - low, 1 + high) A), as in PPO (arXiv:1707.06347).

    Args:
        logprobs: (tokens,), in nats, of the network that trains; s = exp(logprobs - old).
        old: (tokens,), the same of the network that answered.
        advantages: (tokens,), A of the token's answer.
        options: low and high.
    """
    ratios = (logprobs - old).exp()
    clipped = ratios.clamp(1 - options.raft_clip_low, 1 + options.raft_clip_high)
    return torch.minimum(ratios * advantages, clipped * advantages)


class RatioLoss:
    """Minus the mean of :func:`clipped_gains` over the tokens of the answers."""

    unit = "tokens"

    def __init__(self, options: RaftOptions) -> None:
        self._options = options

    def units(self, batch: Batch) -> int:
        """Return the number of their tokens."""
        return int(batch.labelled.sum())

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with the mean reward of the answers and the share of tokens that are clipped.

        Where a round is a single step the network that trains is the one that answered, and no log-probabilities of
        the latter are in the batch.
        """
        logprobs = labelled_logprobs(network, batch)
        if ADVANTAGE not in batch.numbers:  # nobody's: nothing was sampled that teaches
            return LossOutput(logprobs.sum())
        old = batch.numbers.get(OLD, logprobs.detach())
        advantages = batch.numbers[ADVANTAGE][batch.sequence_of_position[batch.labelled]]
        gains = clipped_gains(logprobs, old, advantages, self._options)
        return LossOutput(-gains.sum(), _metrics(logprobs.detach(), old, gains.detach(), advantages, batch))


def _metrics(
    logprobs: torch.Tensor, old: torch.Tensor, gains: torch.Tensor, advantages: torch.Tensor, batch: Batch
) -> dict[str, Mean]:
    ratios, rewards = (logprobs - old).exp(), batch.numbers[REWARD]
    return {
        "reward": Mean(rewards.sum(), len(rewards)),
        "ratio": Mean(ratios.sum(), len(ratios)),
        "clipped": Mean((gains != ratios * advantages).sum(), len(ratios)),
    }


def old_logprobs(job: TorchJob) -> Measurement:
    """Return what measures the log-probability of each token, at temperature 1, by the weights that answered."""

    def measure(examples: list[EncodedExample], step: int | None) -> list[tuple[float, ...]]:
        return measure_tokens(job, examples, labelled_logprobs, whole=True)

    return measure
