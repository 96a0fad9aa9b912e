"""Means and ratios of what was measured of examples, with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_ERROR = " standard error"


@dataclass(frozen=True)
class Figure:
    """A figure, and its standard error; None where one example tells none."""

    value: float
    error: float | None

    def times(self, factor: float) -> Figure:
        """Return the figure in another unit."""
        return Figure(self.value * factor, None if self.error is None else self.error * abs(factor))

    def exponential(self) -> Figure | None:
        """Return e to the figure, with the error that follows by its slope; None where that is no finite number."""
        try:
            value = math.exp(self.value)
        except OverflowError:
            return None
        return Figure(value, None if self.error is None else self.error * value)


def mean(values: Sequence[float]) -> Figure:
    """Return the mean of examples."""
    return ratio(values, [1] * len(values))


def ratio(sums: Sequence[float], counts: Sequence[int]) -> Figure:
    """Return what all sums together are for each of all counted, such as tokens.

    Examples are independent, and tokens of one are not: the error is that of a ratio of totals, by its linearised
    variance (Cochran, Sampling Techniques, 3rd ed., chapter 6).
    """
    examples, counted = len(sums), sum(counts)
    value = math.fsum(sums) / counted
    if examples < 2:
        return Figure(value, None)
    squares = math.fsum((total - value * count) ** 2 for total, count in zip(sums, counts, strict=True))
    return Figure(value, math.sqrt(squares * examples / (examples - 1)) / counted)


def mean_of_sets(figures: Sequence[Figure]) -> Figure:
    """Return the mean of data sets, each of which counts once; they are independent."""
    value = math.fsum(figure.value for figure in figures) / len(figures)
    errors = [figure.error for figure in figures if figure.error is not None]
    if len(errors) < len(figures):
        return Figure(value, None)
    return Figure(value, math.hypot(*errors) / len(figures))


def named(name: str, figures: Mapping[str, Figure]) -> Iterator[tuple[str, float]]:
    """Yield the figures of a data set, and their errors, by the names that they are told by."""
    for figure, found in figures.items():
        yield f"{name} {figure}", found.value
        if found.error is not None:
            yield f"{name} {figure}{_ERROR}", found.error
