"""Batches that go through the model in parts."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from lmflow_core.api import IGNORE, Encoded, RequestError
from lmflow_transformers.packing import lay_out
from lmflow_transformers.training.passes import Batch, parts_of, tokens_per_pass

_CPU, _GPU = torch.device("cpu"), torch.device("cuda")


def _batch(rows: list[Encoded]) -> Batch:
    laid = lay_out(rows)
    return {**laid, "labels": laid["shift_labels"]}


def _row(length: int, first: int = 0) -> Encoded:
    ids = list(range(first, first + length))
    return Encoded(ids, [IGNORE, *ids[1:]])


@pytest.mark.parametrize(
    ("lengths", "most", "parts"),
    [
        ([3, 4, 5], 12, [[3, 4, 5]]),
        ([3, 4, 5], 11, [[3, 4], [5]]),
        ([3, 4, 5], 9, [[3, 4], [5]]),
        ([3, 4, 5], 1, [[3], [4], [5]]),
        ([9, 1, 1, 9], 5, [[9], [1, 1], [9]]),
        ([1, 9, 1], 9, [[1], [9], [1]]),
    ],
)
def test_parts_are_whole_examples_as_many_as_fit(lengths: list[int], most: int, parts: list[list[int]]) -> None:
    found = parts_of(_batch([_row(length) for length in lengths]), most)
    assert [part["cu_seq_lens_q"].diff().tolist() for part in found] == parts


def test_a_part_is_what_its_examples_alone_are_laid_out_as() -> None:
    rows = [_row(length, 100 * length) for length in random.Random(0).choices(range(1, 40), k=50)]
    parts = list(parts_of(_batch(rows), 64))
    left = iter(rows)
    for part in parts:
        own = _batch(list(itertools.islice(left, len(part["cu_seq_lens_q"]) - 1)))
        assert part.keys() == own.keys()
        for name, tensor in own.items():
            assert torch.equal(part[name], tensor)
            assert part[name].dtype == tensor.dtype
    assert next(left, None) is None


def test_a_processor_takes_parts_and_a_gpu_whole_batches() -> None:
    assert tokens_per_pass(None, _CPU, alone=True) == 1024
    assert tokens_per_pass(None, _GPU, alone=True) is None
    assert tokens_per_pass(77, _GPU, alone=True) == 77
    assert tokens_per_pass(None, _CPU, alone=False) is None


def test_parts_with_several_processes_are_refused() -> None:
    with pytest.raises(RequestError, match=r"--pass-tokens splits the batches of one process .* --batch-size"):
        tokens_per_pass(77, _CPU, alone=False)
