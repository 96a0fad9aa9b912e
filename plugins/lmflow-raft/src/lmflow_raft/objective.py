"""RAFT: reward-ranked fine-tuning (Dong et al., arXiv:2304.06767)."""

from __future__ import annotations

import dataclasses
from typing import Any

from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
from lmflow_raft.options import RaftOptions
from lmflow_raft.rounds import Rounds
from lmflow_transformers.api import Batch, CausalModel, LossOutput, Mean, TorchJob, summed_cross_entropy, train

_CHUNK = 512


class RaftLoss:
    """The mean cross-entropy of the answers that are learned, over their tokens."""

    unit = "tokens"

    def units(self, batch: Batch) -> int:
        """Return the number of their tokens."""
        return int(batch.labelled.sum())

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed cross-entropy, in nats, with the mean reward of the answers."""
        rewards = batch.numbers.get("reward")
        metrics = {} if rewards is None else {"reward": Mean(rewards.nansum(), rewards.isfinite().sum())}
        return LossOutput(summed_cross_entropy(network, batch, _CHUNK), metrics)


class RaftObjective:
    """Trains on prompts alone: in each round the model answers them, and learns the answers that are worth most."""

    def __init__(self, options: RaftOptions | None = None) -> None:
        self._options = options or RaftOptions()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Take any model and tuner."""

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model; the report tells what each round came to."""
        rounds = Rounds(job, self._options)
        report = train(job, RaftLoss(), rounds)
        share = rounds.seconds / report.seconds if report.seconds else 0.0
        return dataclasses.replace(
            report, training={**report.training, **rounds.curves()}, metrics={"answering_share_of_time": share}
        )
