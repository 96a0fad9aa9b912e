"""Which examples teach something: the others are left out, counted, and told with the reason."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from lmflow_core.api import DataError, EncodedDataset, EncodedExample, EncodedSequence

T = TypeVar("T")


class LeftOut(Exception):
    """An example teaches nothing; the text tells why, as in "an answer is empty"."""


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


def keep_useful(data: EncodedDataset, choose: Callable[[int], T], what: str, *, told: bool) -> list[T]:
    """Return what is chosen of each example that teaches something.

    Args:
        data: encoded examples.
        choose: from the position of one to what is used of it; it raises ``LeftOut`` for one that teaches nothing.
        what: what the examples are called, in the plural.
        told: whether this process tells how many are left out, and why.

    Raises:
        DataError: none is left.
    """
    chosen: list[T] = []
    left_out: Counter[str] = Counter()
    for position in range(len(data)):
        try:
            chosen.append(choose(position))
        except LeftOut as reason:
            left_out[str(reason)] += 1
    reasons = ", ".join(f"{number} as {reason}" for reason, number in left_out.items())
    if not chosen:
        raise DataError(f"none of {len(data)} {what} is left: {reasons}")
    if left_out and told:
        print(f"lmflow: {left_out.total()} of {len(data)} {what} left out: {reasons}", file=sys.stderr)
    return chosen


def check_different(chosen: EncodedSequence, rejected: EncodedSequence) -> None:
    """Check that two answers differ: of one that is there twice neither can be the better.

    Answers that only differ behind the length they were cut at are one, too.

    Raises:
        LeftOut: they do not.
    """
    if list(chosen.input_ids) == list(rejected.input_ids):
        raise LeftOut("both answers are the same")
