"""Which examples can be learned from: pairs of two different answers, answers with scores."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

from lmflow_core.api import DataError, EncodedDataset, EncodedExample


class Selected:
    """Some of the examples of a data set, by position. Satisfies ``EncodedDataset``."""

    def __init__(self, data: EncodedDataset, positions: Sequence[int]) -> None:
        self._data = data
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: int) -> EncodedExample:
        return self._data[self._positions[position]]

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, all its sequences together."""
        lengths = self._data.lengths()
        return [lengths[position] for position in self._positions]


def different_pairs(data: EncodedDataset, *, tell: bool = True) -> EncodedDataset:
    """Return the pairs whose answers differ: of one answer that is there twice neither can be the better.

    Answers that only differ behind the length they were cut at are one, too. How many are left out is told.

    Args:
        data: encoded examples.
        tell: whether this process tells.

    Raises:
        DataError: a margin is no number, or no pair is left.
    """
    if bad := _count(data, lambda example: not _finite(example, "margin")):
        raise DataError(f"{bad} of {len(data)} pairs have a margin that is no number")
    kept = [position for position in range(len(data)) if _differ(data[position])]
    return _told(data, kept, "pairs have the same answer twice", tell)


def scored_answers(data: EncodedDataset) -> EncodedDataset:
    """Return the examples, whose answers all have scores.

    Raises:
        DataError: some have none, or one that is no number.
    """
    if missing := _count(data, lambda example: len(example.numbers.get("scores", ())) != len(example.sequences)):
        raise DataError(f"{missing} of {len(data)} examples have no scores for their answers: give each answer a score")
    if bad := _count(data, lambda example: not _finite(example, "scores")):
        raise DataError(f"{bad} of {len(data)} examples have a score that is no number")
    return data


def _count(data: EncodedDataset, holds: Callable[[EncodedExample], bool]) -> int:
    return sum(holds(data[position]) for position in range(len(data)))


def _finite(example: EncodedExample, name: str) -> bool:
    return all(map(math.isfinite, example.numbers.get(name, ())))


def _differ(pair: EncodedExample) -> bool:
    chosen, rejected = (list(sequence.input_ids) for sequence in pair.sequences)
    return chosen != rejected


def _told(data: EncodedDataset, kept: Sequence[int], why: str, tell: bool) -> EncodedDataset:
    left_out = len(data) - len(kept)
    if not kept:
        raise DataError(f"nothing is left to compare: all {left_out} {why}")
    if not left_out:
        return data
    if tell:
        print(f"lmflow: left out: {left_out} of {len(data)} {why}", file=sys.stderr)
    return Selected(data, kept)
