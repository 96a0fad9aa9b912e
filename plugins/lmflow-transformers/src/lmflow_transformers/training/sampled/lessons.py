"""What is made of the answers of a round: lessons, each of one or several answers, with numbers for the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lmflow_core.api import EncodedExample, RequestError
from lmflow_transformers.training.sampled.samples import Sample, places_by_prompt

# Of examples, the same in all processes, with the first step of the round (None in validation): for each example a
# number for each of its sequences, or for each token of its answers.
Measurement = Callable[[list[EncodedExample], int | None], list[tuple[float, ...]]]


@dataclass(frozen=True)
class Lesson:
    """What is trained on as one example.

    Attributes:
        places: of its answers among the samples of the round, in the order of its sequences.
        numbers: for the loss, beside what is measured.
    """

    places: tuple[int, ...]
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Teaching:
    """How lessons are made of samples.

    Attributes:
        lessons: makes them, of all samples of a round. What it makes depends on nothing but these, as a run that goes
            on makes them again.
        measurements: what is measured of the answers that are learned before the first step of a round, by the name
            under which the loss finds it. It is kept with the samples.
        measures_all: answers that are not learned are measured too.
        figures: tells, by name, what is known of a round beside the figures that all rounds have.
    """

    lessons: Callable[[Sequence[Sample]], Sequence[Lesson]]
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    measures_all: bool = False
    figures: Callable[[Sequence[Sample]], Mapping[str, float]] | None = None

    def taught(self, samples: Sequence[Sample], step: int | None) -> list[Sample]:
        """Return samples, those marked and measured that are learned. All processes call this with the same."""
        learned = {place for lesson in self.lessons(samples) for place in lesson.places}
        marked = [dataclasses.replace(sample, learned=at in learned) for at, sample in enumerate(samples)]
        wanted = [self.measures_all or sample.learned for sample in marked]
        groups = [kept for group in places_by_prompt(marked) if (kept := [at for at in group if wanted[at]])]
        # Answers to one prompt are measured together, which then goes through the network once.
        examples = [EncodedExample(tuple(marked[at].sequence for at in group)) for group in groups]
        for name, measure in self.measurements.items():
            for group, values in zip(groups, measure(examples, step), strict=True):
                for at, numbers in zip(group, _split(values, [marked[at] for at in group]), strict=True):
                    marked[at] = dataclasses.replace(marked[at], numbers={**marked[at].numbers, name: numbers})
        return marked

    def check(self, samples: Sequence[Sample]) -> None:
        """Check that samples which were kept have been measured as this teaching needs it.

        Raises:
            RequestError: they were made with other options.
        """
        lacking = [name for name in self.measurements if any(s.learned and name not in s.numbers for s in samples)]
        if lacking:
            raise RequestError(
                f"the samples of this round have no {lacking[0]}, as they were made with other options: go on with "
                "those, or begin anew without --resume"
            )

    def examples(self, samples: Sequence[Sample]) -> list[EncodedExample]:
        """Return the lessons of samples that were marked and measured."""
        return [self._example([samples[at] for at in lesson.places], lesson) for lesson in self.lessons(samples)]

    def _example(self, samples: Sequence[Sample], lesson: Lesson) -> EncodedExample:
        measured = {
            name: tuple(number for sample in samples for number in sample.numbers[name]) for name in self.measurements
        }
        return EncodedExample(tuple(sample.sequence for sample in samples), {**lesson.numbers, **measured})


def _split(values: Sequence[float], samples: Sequence[Sample]) -> list[list[float]]:
    """Return the numbers of each sample: one, or one for each token of its answer."""
    if len(values) == len(samples):
        return [[value] for value in values]
    parts, start = [], 0
    for sample in samples:
        parts.append([*values[start : start + len(sample.answer_ids)]])
        start += len(sample.answer_ids)
    assert start == len(values), "a measurement gives a number for each sequence, or for each token of the answers"
    return parts
