"""Rounds: answers to the prompts of some steps with the weights of the first of them, and what of these is learned."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain

from lmflow_core.api import EncodedExample, MetricPoint, TrainingReport
from lmflow_transformers.training.job import TorchJob
from lmflow_transformers.training.sampled.answering import Answered, Sampling, answered
from lmflow_transformers.training.sampled.figures import figures_of, told
from lmflow_transformers.training.sampled.lessons import Teaching
from lmflow_transformers.training.sampled.samples import Sample, SampleFolder

_FOLDER = "samples"


class SampledRounds:
    """A rollout of sampled answers. They are kept among the checkpoints, and found there where a run goes on.

    Lessons are shared out evenly over the processes.

    Attributes:
        steps: of a round.
    """

    def __init__(
        self, job: TorchJob, sampling: Sampling, teaching: Teaching, validation: Teaching | None = None
    ) -> None:
        """Begin.

        Args:
            job: what answers, scores and is trained.
            sampling: what is sampled in a round.
            teaching: makes lessons of it.
            validation: makes lessons of validation prompts, which are answered once each by the likeliest tokens; where
                there is none, they are answered and taught as in training, with the same seeds each time.
        """
        self._job, self._sampling, self._teaching, self._validation = job, sampling, teaching, validation
        self._folder = SampleFolder(job.checkpoints / _FOLDER)
        self._training: tuple[int, float] | None = None  # the round that is trained on, and since when
        self._seconds = 0.0
        self.steps = steps_of_round(job, sampling)

    def __call__(self, examples: list[EncodedExample], step: int | None) -> list[EncodedExample]:
        """Return this process's share of the lessons."""
        if step is None:
            return self._measured(examples)
        self._end_of_training()
        samples = self._kept(step)
        if samples is None:
            samples = self._round(examples, step)
        self._teaching.check(samples)
        return self._share(self._teaching.examples(samples))

    def report(self, report: TrainingReport) -> TrainingReport:
        """Return the report of a finished run with the figures of all rounds, those before an interruption too."""
        self._end_of_training()
        share = self._seconds / report.seconds if report.seconds else 0.0
        curves = {**report.training, **self._curves()}
        metrics = {**report.metrics, "answering_share_of_time": share}
        return dataclasses.replace(report, training=curves, metrics=metrics)

    def _measured(self, examples: Sequence[EncodedExample]) -> list[EncodedExample]:
        teaching = self._validation or self._teaching
        sampling = self._sampling.greedy() if self._validation else self._sampling
        samples, _ = self._gathered(answered(self._job, examples, sampling, 0))
        return self._share(teaching.examples(teaching.taught(samples, None)))

    def _round(self, examples: Sequence[EncodedExample], step: int) -> list[Sample]:
        mine = answered(self._job, examples, self._sampling, step)
        samples, too_long = self._gathered(mine)
        samples = self._teaching.taught(samples, step)
        self._seconds += mine.generating + mine.scoring
        if self._job.world.is_main:
            seconds = {"seconds_generating": mine.generating, "seconds_scoring": mine.scoring}
            self._folder.write(step, samples)
            self._folder.note(step, {**self._told(samples), **seconds})
            print(f"lmflow: {told(samples, step, too_long)}", file=sys.stderr)
            self._training = step, time.perf_counter()
        return samples

    def _kept(self, step: int) -> list[Sample] | None:
        """Return the samples that the main process finds of a round; all processes have the same answer."""
        mine = self._folder.read(step) if self._job.world.is_main else None
        found: list[Sample] | None = self._job.services.all_gather(mine)[0]
        return found

    def _gathered(self, mine: Answered) -> tuple[list[Sample], int]:
        """Return the samples of all processes, and how many prompts are too long."""
        parts = self._job.services.all_gather((mine.samples, mine.too_long))
        return [*_numbered([samples for samples, _ in parts])], sum(too_long for _, too_long in parts)

    def _share(self, lessons: list[EncodedExample]) -> list[EncodedExample]:
        world = self._job.world
        return lessons[world.rank :: world.size]

    def _end_of_training(self) -> None:
        """Note how long the round before was trained on; of one that was interrupted this is not known."""
        if self._training is not None:
            step, since = self._training
            self._training = None
            self._folder.note(step, {"seconds_training": time.perf_counter() - since})

    def _curves(self) -> dict[str, tuple[MetricPoint, ...]]:
        figures = {step: self._figures(step) for step in self._folder.steps()}
        names = dict.fromkeys(chain.from_iterable(figures.values()))
        return {
            name: tuple(MetricPoint(step, known[name]) for step, known in figures.items() if name in known)
            for name in names
        }

    def _figures(self, step: int) -> dict[str, float]:
        """Return the figures of a round; one that was cut off before they were noted is told by its samples."""
        if noted := self._folder.noted(step):
            return noted
        return self._told(self._folder.read(step) or [])

    def _told(self, samples: Sequence[Sample]) -> dict[str, float]:
        own = self._teaching.figures
        return {**figures_of(samples), **(own(samples) if own else {})}


def steps_of_round(job: TorchJob, sampling: Sampling) -> int:
    """Return how many steps a round has: as many as its prompts make, or those of an epoch."""
    prompts = len(job.data) if sampling.round_prompts is None else sampling.round_prompts
    return max(1, -(-min(prompts, len(job.data)) // _prompts_of_step(job)))


def for_rounds(job: TorchJob, sampling: Sampling, rounds: int | None) -> TorchJob:
    """Return a job that ends after so many rounds, however many epochs these are; None leaves it as it is."""
    if rounds is None:
        return job
    of_epoch, of_round = -(-len(job.data) // _prompts_of_step(job)), steps_of_round(job, sampling)
    epochs, more = divmod(rounds, -(-of_epoch // of_round))  # the last round of an epoch may be shorter
    steps = epochs * of_epoch + more * of_round
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, max_steps=steps))


def _prompts_of_step(job: TorchJob) -> int:
    settings = job.settings
    return settings.batch_size * settings.gradient_accumulation_steps * job.world.size


def _numbered(parts: Sequence[Sequence[Sample]]) -> Iterator[Sample]:
    """Yield the samples of all processes, their prompts numbered throughout."""
    before = 0
    for part in parts:
        yield from (dataclasses.replace(sample, prompt=sample.prompt + before) for sample in part)
        before += 1 + max((sample.prompt for sample in part), default=-1)
