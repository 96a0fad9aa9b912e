"""Which examples can be learned from: pairs of two different answers, answers with scores."""

from __future__ import annotations

import math
from collections.abc import Callable

from lmflow_core.api import DataError, EncodedDataset, EncodedExample
from lmflow_transformers.api import Selected, check_different, keep_useful


def different_pairs(data: EncodedDataset, *, tell: bool = True) -> EncodedDataset:
    """Return the pairs whose answers differ; how many are left out is told.

    Args:
        data: encoded examples.
        tell: whether this process tells.

    Raises:
        DataError: a margin is no number, or no pair is left.
    """
    if bad := _count(data, lambda example: not _finite(example, "margin")):
        raise DataError(f"{bad} of {len(data)} pairs have a margin that is no number")

    def different(position: int) -> int:
        check_different(*data[position].sequences)
        return position

    return Selected(data, keep_useful(data, different, "pairs", told=tell))


def scored_answers(data: EncodedDataset) -> EncodedDataset:
    """Return the examples, whose answers all have scores.

    Raises:
        DataError: some have none, or one that is no number.
    """
    if missing := _count(data, _lacks_scores):
        raise DataError(f"{missing} of {len(data)} examples have no scores for their answers: give each answer a score")
    if bad := _count(data, lambda example: not _finite(example, "scores")):
        raise DataError(f"{bad} of {len(data)} examples have a score that is no number")
    return data


def _lacks_scores(example: EncodedExample) -> bool:
    scores = example.numbers.get("scores", ())
    return len(scores) != len(example.sequences) or any(map(math.isnan, scores))


def _count(data: EncodedDataset, holds: Callable[[EncodedExample], bool]) -> int:
    return sum(holds(data[position]) for position in range(len(data)))


def _finite(example: EncodedExample, name: str) -> bool:
    return all(map(math.isfinite, example.numbers.get(name, ())))
