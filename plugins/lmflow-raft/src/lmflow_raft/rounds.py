"""Rounds: answers to the prompts of some steps with the weights of the first of them, and what of these is learned."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import fmean

from lmflow_core.api import AnsweredPrompt, EncodedExample, MetricPoint, as_turns
from lmflow_raft.options import RaftOptions
from lmflow_raft.samples import Sample, SampleFolder, by_prompt
from lmflow_raft.selection import selected
from lmflow_transformers.api import TorchJob

_FOLDER = "samples"


class Rounds:
    """The rollout of RAFT. What is sampled is kept among the checkpoints, and found there where a run goes on.

    Attributes:
        steps: of a round.
        seconds: spent answering and scoring, in this process.
    """

    def __init__(self, job: TorchJob, options: RaftOptions) -> None:
        self._job, self._options = job, options
        self._folder = SampleFolder(job.checkpoints / _FOLDER)
        self.steps = _steps_of_round(job, options)
        self.seconds = 0.0

    def __call__(self, examples: list[EncodedExample], step: int | None) -> list[EncodedExample]:
        """Return the answers that are learned, of all processes' a share of equal size.

        Validation prompts are answered once each, by the likeliest tokens.
        """
        if step is None:
            return [sample.encoded() for sample in self._answered(examples, 1, 0, greedy=True)]
        samples = self._kept(step)
        if samples is None:
            samples = self._round(examples, step)
        learned = [sample for sample in samples if sample.learned]
        world = self._job.world
        return [sample.encoded() for sample in learned[world.rank :: world.size]]

    def _kept(self, step: int) -> list[Sample] | None:
        """Return the samples that the main process finds of a round; all processes have the same answer."""
        mine = self._folder.read(step) if self._job.world.is_main else None
        found: list[Sample] | None = self._job.services.all_gather(mine)[0]
        return found

    def _round(self, examples: Sequence[EncodedExample], step: int) -> list[Sample]:
        started = time.perf_counter()
        mine = self._answered(examples, self._options.raft_samples, step)
        parts = self._job.services.all_gather(mine)
        samples = selected([*_numbered(parts)], self._options)
        self.seconds += time.perf_counter() - started
        if self._job.world.is_main:
            self._folder.write(step, samples)
            print(f"lmflow: {_told(samples, step)}", file=sys.stderr)
        return samples

    def _answered(
        self, examples: Sequence[EncodedExample], count: int, step: int, *, greedy: bool = False
    ) -> list[Sample]:
        services, options = self._job.services, self._options
        asked = [(n, example) for n, example in enumerate(examples) for _ in range(count)]
        prompts = [list(example.sequences[0].input_ids) for _, example in asked]
        answers = services.generate(
            self._job.model,
            prompts,
            max_new_tokens=options.raft_max_new_tokens,
            seeds=[seed for example in examples for seed in self._seeds(example, step, count)],
            options={"temperature": 0.0 if greedy else options.raft_temperature},
        )
        answered = [
            AnsweredPrompt(example.prompt, answer.text)
            for (_, example), answer in zip(asked, answers, strict=True)
            if example.prompt is not None
        ]
        rewards = services.score(answered)
        return [
            Sample(
                number,
                [*as_turns(pair.prompt.messages), {"role": "assistant", "content": pair.answer}],
                prompt,
                list(answer.ids),
                reward,
            )
            for (number, _), pair, prompt, answer, reward in zip(
                asked, answered, prompts, answers, rewards, strict=True
            )
        ]

    def _seeds(self, example: EncodedExample, step: int, count: int) -> Iterator[int]:
        """Yield a seed for each answer, which depends on nothing but the run's seed, the step and the prompt."""
        for number in range(count):
            text = f"{self._job.settings.seed} {step} {number} {list(example.sequences[0].input_ids)}"
            yield int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def curves(self) -> dict[str, tuple[MetricPoint, ...]]:
        """Return the figures of all rounds, those before an interruption too."""
        figures = [(step, _figures(samples)) for step, samples in self._folder.rounds()]
        names = [*dict.fromkeys(name for _, known in figures for name in known)]
        return {
            name: tuple(MetricPoint(step, known[name]) for step, known in figures if name in known) for name in names
        }


def _steps_of_round(job: TorchJob, options: RaftOptions) -> int:
    """Return how many steps a round has: as many as its prompts make, or those of an epoch."""
    settings = job.settings
    together = settings.batch_size * settings.gradient_accumulation_steps * job.world.size
    prompts = len(job.data) if options.raft_round_prompts is None else options.raft_round_prompts
    return max(1, -(-min(prompts, len(job.data)) // together))


def _numbered(parts: Sequence[Sequence[Sample]]) -> Iterator[Sample]:
    """Yield the samples of all processes, their prompts numbered throughout."""
    before = 0
    for part in parts:
        yield from (dataclasses.replace(sample, prompt=sample.prompt + before) for sample in part)
        before += 1 + max((sample.prompt for sample in part), default=-1)


def _figures(samples: Sequence[Sample]) -> dict[str, float]:
    """Return what a round came to: rewards of all and of what is learned, and how many answers are not alike."""
    scored = [sample.reward for sample in samples if sample.scored]
    learned = [sample.reward for sample in samples if sample.learned]
    distinct = [len({tuple(s.answer_ids) for s in group}) / len(group) for group in by_prompt(samples)]
    figures = {"learned": len(learned) / len(samples), "distinct": fmean(distinct)} if samples else {}
    if scored:
        figures["sampled_reward"] = fmean(scored)
    if learned:
        figures["learned_reward"] = fmean(learned)
    return figures


def _told(samples: Sequence[Sample], step: int) -> str:
    unscored = sum(not sample.scored for sample in samples)
    alike = sum(len({sample.reward for sample in group}) == 1 for group in by_prompt(samples))
    figures = ", ".join(f"{name} {value:.3f}" for name, value in _figures(samples).items())
    passed = f"; {alike} prompts whose answers are all worth the same" if alike else ""
    return f"round at step {step}: {len(samples)} answers, {figures}{passed}" + (
        f"; {unscored} without a reward" if unscored else ""
    )
