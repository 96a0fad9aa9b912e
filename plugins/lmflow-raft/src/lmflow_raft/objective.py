"""RAFT: reward-ranked fine-tuning (Dong et al., arXiv:2304.06767)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
from lmflow_raft.options import RaftOptions
from lmflow_raft.selection import best
from lmflow_transformers.api import (
    Batch,
    CausalModel,
    Lesson,
    LossOutput,
    Mean,
    Sample,
    SampledRounds,
    Sampling,
    Teaching,
    TorchJob,
    summed_cross_entropy,
    train,
)

_CHUNK = 512


class RaftLoss:
    """The mean cross-entropy of the answers that are learned, over their tokens."""

    unit = "tokens"

    def units(self, batch: Batch) -> int:
        """Return the number of their tokens."""
        return int(batch.labelled.sum())

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed cross-entropy, in nats, with the mean reward of the answers."""
        return LossOutput(summed_cross_entropy(network, batch, _CHUNK), mean_reward(batch))


def mean_reward(batch: Batch) -> dict[str, Mean]:
    """Return the mean reward of the answers of a batch as a metric; of a batch that is nobody's there is none."""
    rewards = batch.numbers.get("reward")
    return {} if rewards is None else {"reward": Mean(rewards.nansum(), rewards.isfinite().sum())}


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
        options = self._options
        sampling = Sampling(
            samples=options.raft_samples,
            max_new_tokens=options.raft_max_new_tokens,
            temperature=options.raft_temperature,
            round_prompts=options.raft_round_prompts,
        )
        rounds = SampledRounds(job, sampling, Teaching(self._best), validation=Teaching(_all))
        return rounds.report(train(job, RaftLoss(), rounds))

    def _best(self, samples: Sequence[Sample]) -> list[Lesson]:
        return [_lesson(samples, at) for at in best(samples, self._options)]


def _all(samples: Sequence[Sample]) -> list[Lesson]:
    return [_lesson(samples, at) for at in range(len(samples))]


def _lesson(samples: Sequence[Sample], at: int) -> Lesson:
    return Lesson((at,), {"reward": (samples[at].reward,)})
