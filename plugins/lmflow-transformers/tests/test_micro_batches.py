"""Batches that go through the network in micro-batches."""

from __future__ import annotations

import pytest
import torch

from lmflow_core.api import EncodedExample, EncodedSequence, RequestError
from lmflow_core.testing.jobs import single
from lmflow_transformers.training.micro_batches import micro_batches, tokens_per_micro_batch

_CPU, _GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("lengths", "most", "expected"),
    [
        ([3, 4, 5], 12, [[3, 4, 5]]),
        ([3, 4, 5], 11, [[3, 4], [5]]),
        ([3, 4, 5], 9, [[3, 4], [5]]),
        ([3, 4, 5], 1, [[3], [4], [5]]),
        ([9, 1, 1, 9], 5, [[9], [1, 1], [9]]),
        ([1, 9, 1], 9, [[1], [9], [1]]),
    ],
)
def test_micro_batches_are_whole_examples_as_many_as_fit(
    lengths: list[int], most: int, expected: list[list[int]]
) -> None:
    found = micro_batches([single(range(length)) for length in lengths], most)
    assert [[example.tokens for example in batch] for batch in found] == expected


def test_a_group_is_never_torn_apart() -> None:
    pair = EncodedExample((EncodedSequence([1, 2, 3], [1, 2, 3]), EncodedSequence([4, 5], [4, 5])))
    assert list(micro_batches([pair, pair], 4)) == [[pair], [pair]]
    assert list(micro_batches([pair, pair], None)) == [[pair, pair]]


def test_a_processor_takes_micro_batches_and_a_gpu_whole_batches() -> None:
    assert tokens_per_micro_batch(None, _CPU, alone=True) == 1024
    assert tokens_per_micro_batch(None, _GPU, alone=True) is None
    assert tokens_per_micro_batch(77, _GPU, alone=True) == 77
    assert tokens_per_micro_batch(None, _CPU, alone=False) is None


def test_micro_batches_with_several_processes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"--micro-batch-tokens splits the batches of one process .* --batch-size"):
        tokens_per_micro_batch(77, _CPU, alone=False)
