"""What a reward model learns: the order of two answers, or the scores of answers."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_reward.options import RewardOptions
from lmflow_transformers.api import Batch, LossOutput, Mean, sequence_values


class PairLoss:
    """-log sigmoid(chosen - rejected - scale * margin), the mean over pairs.

    The likelihood of the preferences under the model of Bradley and Terry (Stiennon et al., arXiv:2009.01325), with the
    margin of Touvron et al. (arXiv:2307.09288) where the data has one and the centering of Eisenstein et al.
    (arXiv:2312.09244).
    """

    unit = "pairs"

    def __init__(self, options: RewardOptions) -> None:
        self._options = options

    def units(self, batch: Batch) -> int:
        """Return the number of pairs."""
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, in nats, with the share of pairs in order and the mean rewards."""
        chosen, rejected = sequence_values(network, batch).view(-1, 2).unbind(1)
        margins = chosen - rejected
        # A pair whose row tells no margin is to be in order, no more.
        asked = batch.numbers.get("margin", torch.zeros_like(margins)).nan_to_num()
        losses = -torch.nn.functional.logsigmoid(margins - self._options.reward_margin_scale * asked)
        losses = losses + self._options.reward_centering * (chosen + rejected) ** 2
        pairs = len(margins)
        metrics = {
            "accuracy": Mean((margins > 0).float().sum(), pairs),
            "margin": Mean(margins.detach().sum(), pairs),
            "mean_reward": Mean((chosen + rejected).detach().sum(), 2 * pairs),
            "chosen_reward": Mean(chosen.detach().sum(), pairs),
            "rejected_reward": Mean(rejected.detach().sum(), pairs),
        }
        return LossOutput(losses.sum(), metrics)


class ScoreLoss:
    """The squared difference of reward and score, the mean over answers."""

    unit = "answers"

    def units(self, batch: Batch) -> int:
        """Return the number of answers."""
        return len(batch.ends) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with the mean reward and how far rewards are from the scores."""
        rewards = sequence_values(network, batch)
        differences = rewards - batch.numbers["scores"]
        answers = len(rewards)
        metrics = {
            "mean_reward": Mean(rewards.detach().sum(), answers),
            "absolute_error": Mean(differences.detach().abs().sum(), answers),
        }
        return LossOutput((differences**2).sum(), metrics)
