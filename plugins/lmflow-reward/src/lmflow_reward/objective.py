"""Objectives that train a regression head on a language model: on pairs of answers, or on their scores."""

from __future__ import annotations

from dataclasses import replace

from lmflow_core.api import EncodedDataset, LoadPlan, TrainingReport, TrainingSetup
from lmflow_reward.examples import different_pairs, scored_answers
from lmflow_reward.losses import PairLoss, ScoreLoss
from lmflow_reward.options import RewardOptions
from lmflow_transformers.api import CausalModel, Loss, TorchJob, check_values, train


class ScoreObjective:
    """Trains a model that gives a number for a text, read at its last token, on numbers of the data.

    A model that predicts tokens is given a new head, drawn by the seed; one that gives a number already goes on.
    """

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask for a network that gives a number."""
        return replace(plan, task="regression")

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Take any tuner, and any model that can be given a head, as it told by accepting the plan."""

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model in place.

        Raises:
            DataError: an example is none that is learned from.
            ModelError: the number is not read as it is known to be.
        """
        if not job.model.plan.sharded:
            check_values(job.model.base)
        validation = None if job.validation is None else self.usable(job.validation, tell=job.world.is_main)
        return train(
            replace(job, data=self.usable(job.data, tell=job.world.is_main), validation=validation), self.loss()
        )

    def loss(self) -> Loss:
        """Return what is learned."""
        return ScoreLoss()

    def usable(self, data: EncodedDataset, *, tell: bool) -> EncodedDataset:
        """Return the examples that can be learned from; where ``tell`` is set, others are told of."""
        return scored_answers(data)


class RewardObjective(ScoreObjective):
    """Trains a reward model on pairs of answers, of which one was preferred."""

    def __init__(self, options: RewardOptions | None = None) -> None:
        super().__init__()
        self._options = options or RewardOptions()

    def loss(self) -> Loss:
        """Return what is learned."""
        return PairLoss(self._options)

    def usable(self, data: EncodedDataset, *, tell: bool) -> EncodedDataset:
        """Return the pairs of two different answers."""
        return different_pairs(data, tell=tell)
