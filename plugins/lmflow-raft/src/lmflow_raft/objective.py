"""RAFT: reward-ranked fine-tuning (Dong et al., arXiv:2304.06767), and what goes on from it."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
from lmflow_raft.methods import METHODS, by_reward, every
from lmflow_raft.options import RaftOptions
from lmflow_raft.ratios import OLD, REWARD, RatioLoss, old_logprobs
from lmflow_transformers.api import (
    Batch,
    CausalModel,
    LossOutput,
    Mean,
    SampledRounds,
    Sampling,
    Teaching,
    TorchJob,
    for_rounds,
    steps_of_round,
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
        rewards = batch.numbers.get(REWARD)
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
        options = self._options
        sampling = Sampling(
            samples=options.raft_samples,
            max_new_tokens=options.raft_max_new_tokens,
            temperature=options.raft_temperature,
            round_prompts=options.raft_round_prompts,
        )
        job = for_rounds(job, sampling, options.raft_rounds)
        plain = options.raft_method == "raft"
        several = steps_of_round(job, sampling) > 1
        if not plain and several and sampling.temperature != 1 and job.world.is_main:
            print(
                f"lmflow: answers are sampled at temperature {sampling.temperature:g}; ratios compare probabilities "
                "at temperature 1",
                file=sys.stderr,
            )
        teaching = Teaching(
            partial(METHODS[options.raft_method], options=options),
            {OLD: old_logprobs(job)} if several and not plain else {},
        )
        measured = Teaching(partial(every if plain else by_reward, options=options))
        rounds = SampledRounds(job, sampling, teaching, validation=measured)
        return rounds.report(train(job, RaftLoss() if plain else RatioLoss(options), rounds))
