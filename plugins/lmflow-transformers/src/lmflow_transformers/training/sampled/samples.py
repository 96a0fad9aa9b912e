"""Answers of a round with their rewards, kept as rows that can be trained on, and read back by a run that goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_core.api import IGNORE, EncodedSequence, atomic_text


@dataclass(frozen=True)
class Sample:
    """An answer to a prompt.

    Attributes:
        prompt: number of the prompt in its round; samples of one prompt stand together.
        messages: the conversation, its last message the answer.
        prompt_ids: token ids of the prompt.
        answer_ids: token ids of the answer, the one that ended it included.
        reward: NaN where it could not be scored.
        learned: whether it is trained on.
        numbers: what was measured of it, such as log-probabilities: by name one number, or one for each token.
    """

    prompt: int
    messages: Sequence[Mapping[str, Any]]
    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    reward: float
    learned: bool = False
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def scored(self) -> bool:
        """Whether it has a reward."""
        return math.isfinite(self.reward)

    @property
    def empty(self) -> bool:
        """Whether nothing was written."""
        return not str(self.messages[-1]["content"]).strip() if self.messages else not self.answer_ids

    @property
    def sequence(self) -> EncodedSequence:
        """It as a sequence whose answer is learned."""
        ids = [*self.prompt_ids, *self.answer_ids]
        return EncodedSequence(ids, [*[IGNORE] * len(self.prompt_ids), *self.answer_ids])


def places_by_prompt(samples: Sequence[Sample]) -> list[list[int]]:
    """Return the places of the samples of a round, those of each prompt together."""
    return [[*group] for _, group in itertools.groupby(range(len(samples)), lambda at: samples[at].prompt)]


class SampleFolder:
    """A file of samples for each round, by the step that it begins with, and beside it one with its figures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, step: int, samples: Sequence[Sample]) -> None:
        """Keep the samples of a round; the file is whole or absent.

        Raises:
            OutputError: the disk refuses.
        """
        with atomic_text(self._file(step)) as stream:
            stream.writelines(json.dumps(_row(sample), ensure_ascii=False) + "\n" for sample in samples)

    def read(self, step: int) -> list[Sample] | None:
        """Return the samples of the round that begins with a step, or None where there are none."""
        file = self._file(step)
        return [*_samples(file)] if file.is_file() else None

    def steps(self) -> list[int]:
        """Return the steps that rounds begin with."""
        return sorted(int(file.stem.removeprefix("step-")) for file in self._folder.glob("step-*.jsonl"))

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Add figures of a round to those there are.

        Raises:
            OutputError: the disk refuses.
        """
        with atomic_text(self._figures(step)) as stream:
            json.dump({**self.noted(step), **figures}, stream)

    def noted(self, step: int) -> dict[str, float]:
        """Return the figures that were noted of a round."""
        file = self._figures(step)
        noted: dict[str, float] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return noted

    def _figures(self, step: int) -> Path:
        return self._file(step).with_suffix(".json")

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}.jsonl"


def _row(sample: Sample) -> dict[str, Any]:
    row = {**dataclasses.asdict(sample), "reward": sample.reward if sample.scored else None}
    if not sample.numbers:
        del row["numbers"]
    return row


def _samples(file: Path) -> Iterator[Sample]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Sample(**{**row, "reward": math.nan if row["reward"] is None else row["reward"]})
