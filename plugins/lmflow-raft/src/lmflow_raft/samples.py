"""Answers of a round with their rewards, kept as rows that can be trained on, and read back by a run that goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, OutputError

_PARTIAL = ".partial"


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
    """

    prompt: int
    messages: Sequence[Mapping[str, Any]]
    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    reward: float
    learned: bool = False

    @property
    def scored(self) -> bool:
        """Whether it has a reward."""
        return not math.isnan(self.reward)

    def encoded(self) -> EncodedExample:
        """Return it as an example whose answer is learned."""
        ids = [*self.prompt_ids, *self.answer_ids]
        labels = [*[IGNORE] * len(self.prompt_ids), *self.answer_ids]
        return EncodedExample((EncodedSequence(ids, labels),), {"reward": (self.reward,)})


def by_prompt(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples of a round, those of each prompt together."""
    return [[*group] for _, group in itertools.groupby(samples, lambda sample: sample.prompt)]


class SampleFolder:
    """A file of samples for each round, by the step that it begins with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, step: int, samples: Sequence[Sample]) -> None:
        """Keep the samples of a round; the file is whole or absent.

        Raises:
            OutputError: the disk refuses.
        """
        file = self._file(step)
        partial = file.with_name(file.name + _PARTIAL)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(_row(sample), ensure_ascii=False) + "\n" for sample in samples)
            os.replace(partial, file)
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error

    def read(self, step: int) -> list[Sample] | None:
        """Return the samples of the round that begins with a step, or None where there are none."""
        file = self._file(step)
        return [*_samples(file)] if file.is_file() else None

    def rounds(self) -> Iterator[tuple[int, list[Sample]]]:
        """Yield the first step and the samples of each round."""
        for file in sorted(self._folder.glob("step-*.jsonl")):
            yield int(file.stem.removeprefix("step-")), [*_samples(file)]

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}.jsonl"


def _row(sample: Sample) -> dict[str, Any]:
    row = dataclasses.asdict(sample)
    return {**row, "reward": sample.reward if sample.scored else None}


def _samples(file: Path) -> Iterator[Sample]:
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield Sample(**{**row, "reward": math.nan if row["reward"] is None else row["reward"]})
