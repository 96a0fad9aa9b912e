"""REINFORCE leave-one-out (Ahmadian et al., arXiv:2402.14740): an answer is judged by the others to its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmflow_contrib_rloo.plugin import RlooOptions
from lmflow_core.api import LoadPlan, TrainingReport, TrainingSetup
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
    places_by_prompt,
    sequence_logprobs,
    train,
)


class RlooLoss:
    """- advantage * log p(answer), mean over answers."""

    unit = "answers"

    def units(self, batch: Batch) -> int:
        """Return the number of answers."""
        return len(batch.ends) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with the mean reward."""
        logprobs = sequence_logprobs(network, batch)
        if "reward" not in batch.numbers:  # nobody's: nothing was sampled that teaches
            return LossOutput(logprobs.sum())
        rewards = batch.numbers["reward"]
        metrics = {"reward": Mean(rewards.sum(), len(rewards))}
        return LossOutput(-(batch.numbers["advantage"] * logprobs).sum(), metrics)


def lessons(samples: Sequence[Sample]) -> list[Lesson]:
    """Return a lesson for each prompt that has several answers with a reward: these, with their advantages."""
    groups = [[at for at in group if samples[at].scored] for group in places_by_prompt(samples)]
    return [_lesson(group, [samples[at].reward for at in group]) for group in groups if len(group) > 1]


def _lesson(places: Sequence[int], rewards: Sequence[float]) -> Lesson:
    others = len(rewards) - 1
    advantages = tuple(reward - (sum(rewards) - reward) / others for reward in rewards)
    return Lesson(tuple(places), {"advantage": advantages, "reward": tuple(rewards)})


class RlooObjective:
    """Trains on prompts alone: the answers are the model's own."""

    def __init__(self, options: RlooOptions | None = None) -> None:
        self._options = options or RlooOptions()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Take any model and tuner."""

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model."""
        options = self._options
        # Of each step its own, at the temperature of the distribution whose log-probabilities are learned.
        sampling = Sampling(
            samples=options.rloo_samples, max_new_tokens=options.rloo_max_new_tokens, temperature=1.0, round_prompts=1
        )
        rounds = SampledRounds(job, sampling, Teaching(lessons))
        return rounds.report(train(job, RlooLoss(), rounds))
