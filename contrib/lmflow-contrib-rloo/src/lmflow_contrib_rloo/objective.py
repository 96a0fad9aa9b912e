"""REINFORCE leave-one-out (Ahmadian et al., arXiv:2402.14740): an answer is judged by the others to its prompt."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from lmflow_contrib_rloo.plugin import RlooOptions
from lmflow_core.api import (
    IGNORE,
    AnsweredPrompt,
    EncodedExample,
    EncodedSequence,
    LoadPlan,
    TrainingReport,
    TrainingSetup,
)
from lmflow_transformers.api import Batch, CausalModel, LossOutput, Mean, TorchJob, sequence_logprobs, train


class RlooLoss:
    """- advantage * log p(answer), mean over answers."""

    unit = "answers"

    def units(self, batch: Batch) -> int:
        """Return the number of answers."""
        return len(batch.ends) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the summed loss, with the mean reward."""
        logprobs = sequence_logprobs(network, batch)
        rewards = batch.numbers["reward"]
        metrics = {"reward": Mean(rewards.sum(), len(rewards))}
        return LossOutput(-(batch.numbers["advantage"] * logprobs).sum(), metrics)


class Sampler:
    """Makes, of the prompts of a step, groups of sampled answers with their rewards and advantages."""

    steps = 1

    def __init__(self, job: TorchJob, options: RlooOptions) -> None:
        self._job, self._options = job, options

    def __call__(self, examples: list[EncodedExample], step: int | None) -> list[EncodedExample]:
        """Answer each prompt several times with the weights of this step."""
        options, count, services = self._options, self._options.rloo_samples, self._job.services
        prompts = [list(example.sequences[0].input_ids) for example in examples]
        answers = services.generate(
            self._job.model,
            [prompt for prompt in prompts for _ in range(count)],
            max_new_tokens=options.rloo_max_new_tokens,
            seeds=[seed for prompt in prompts for seed in self._seeds(prompt, step or 0)],
            options={"temperature": 1.0},  # the distribution whose log-probabilities are learned
        )
        asked = [example.prompt for example in examples if example.prompt is not None for _ in range(count)]
        rewards = services.score([AnsweredPrompt(p, answer.text) for p, answer in zip(asked, answers, strict=True)])
        groups = []
        for number, prompt in enumerate(prompts):
            part = slice(number * count, (number + 1) * count)
            pairs = zip(answers[part], rewards[part], strict=True)
            scored = [(answer.ids, reward) for answer, reward in pairs if not math.isnan(reward)]
            if len(scored) > 1:
                groups.append(_group(prompt, *zip(*scored, strict=True)))
        return groups

    def _seeds(self, prompt: Sequence[int], step: int) -> Iterator[int]:
        """Yield a seed for each answer, which depends on nothing but the run's seed, the step and the prompt."""
        for number in range(self._options.rloo_samples):
            text = f"{self._job.settings.seed} {step} {number} {prompt}"
            yield int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _group(prompt: Sequence[int], answers: Sequence[Sequence[int]], rewards: Sequence[float]) -> EncodedExample:
    unlabelled = [IGNORE] * len(prompt)
    sequences = tuple(EncodedSequence([*prompt, *ids], [*unlabelled, *ids]) for ids in answers)
    others = len(rewards) - 1
    advantages = tuple(reward - (sum(rewards) - reward) / others for reward in rewards)
    return EncodedExample(sequences, {"advantage": advantages, "reward": tuple(rewards)})


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
        return train(job, RlooLoss(), Sampler(job, self._options))
