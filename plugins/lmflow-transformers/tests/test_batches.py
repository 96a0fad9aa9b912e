"""Batches: sequences end to end, with their boundaries, their groups and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, Media, ModelSettings
from lmflow_core.testing.jobs import single
from lmflow_transformers.attention import SdpaAttention, using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.devices import rows_of_kernels
from lmflow_transformers.likelihood.network import summed_cross_entropy
from lmflow_transformers.models import CausalModelLoader

_PAIR = EncodedExample(
    (EncodedSequence([5, 6, 7], [IGNORE, 6, 7]), EncodedSequence([8, 9], [8, 9])), {"margin": (0.5,)}
)
_IMAGE = EncodedExample(
    (EncodedSequence([3, 4, 4, 5], [IGNORE, IGNORE, IGNORE, 5], (Media("a.png", "d", start=1, tokens=2),)),)
)


def test_sequences_lie_end_to_end_and_never_predict_each_other() -> None:
    batch = collate([_PAIR, single([1, 2])])
    (inputs,) = batch.inputs
    assert inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert inputs["cu_seq_lens_q"].tolist() == [0, 3, 5, 7]
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert batch.targets.tolist() == [6, 7, IGNORE, 9, IGNORE, 2, IGNORE]
    assert batch.labelled.tolist() == [True, True, False, True, False, True, False]
    assert batch.ends.tolist() == [0, 3, 5, 7]
    assert batch.groups.tolist() == [0, 2, 3]
    assert batch.sequence_of_position.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert batch.tokens == 7


def test_an_example_without_a_number_has_none_in_its_place() -> None:
    ((margin, missing),) = [collate([_PAIR, single([1, 2])]).numbers["margin"].tolist()]
    assert (margin, math.isnan(missing)) == (0.5, True)
    assert collate([single([1, 2])]).numbers == {}


def test_numbers_of_sequences_stay_beside_them() -> None:
    scored = EncodedExample(tuple(single([n, n + 1]).sequences[0] for n in (3, 5, 7)), {"score": (1.0, 2.0, 3.0)})
    unscored = EncodedExample(scored.sequences[:2])
    scores = collate([unscored, scored]).numbers["score"]
    assert scores.isnan().tolist() == [True, True, False, False, False]
    assert scores[2:].tolist() == [1.0, 2.0, 3.0]


def test_labels_are_counted_for_each_sequence() -> None:
    unlabelled = single([1, 2], [IGNORE, IGNORE])
    assert collate([_PAIR, unlabelled]).labels_per_sequence.tolist() == [2, 1, 0]


def test_a_network_that_does_not_isolate_sequences_gets_each_alone() -> None:
    batch = collate([_PAIR, single([1, 2])], isolated=False)
    assert [{name: t.tolist() for name, t in each.items()} for each in batch.inputs] == [
        {"input_ids": [[5, 6, 7]]},
        {"input_ids": [[8, 9]]},
        {"input_ids": [[1, 2]]},
    ]
    assert torch.equal(batch.targets, collate([_PAIR, single([1, 2])]).targets)


def _pixels(sequences: Sequence[EncodedSequence]) -> dict[str, torch.Tensor]:
    media = [each for sequence in sequences for each in sequence.media]
    return {"pixel_values": torch.stack([torch.full((2,), float(len(each.source))) for each in media])} if media else {}


def test_media_are_made_into_inputs_when_the_batch_is_collated() -> None:
    (inputs,) = collate([_IMAGE, single([1, 2]), _IMAGE], media_inputs=_pixels).inputs
    assert inputs["pixel_values"].tolist() == [[5.0, 5.0], [5.0, 5.0]]
    alone = collate([_IMAGE, single([1, 2])], isolated=False, media_inputs=_pixels).inputs
    assert ["pixel_values" in each for each in alone] == [True, False]
    with pytest.raises(ValueError, match="the data has images, and the model takes none"):
        collate([_IMAGE])


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate([_PAIR]).to(torch.device("meta"))
    assert isinstance(batch, Batch)
    tensors = [*batch.inputs[0].values(), batch.targets, batch.ends, batch.groups, *batch.numbers.values()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_row_is_filled_up_by_what_counts_nowhere(tiny_model: Path) -> None:
    examples = [_PAIR, single([1, 2, 3], [IGNORE, 2, 3])]
    plain, filled = collate(examples), collate(examples, rows=16)
    assert filled.inputs[0]["input_ids"].shape == (1, 16)
    assert filled.inputs[0]["input_ids"][0, 8:].tolist() == [6] * 8
    assert filled.inputs[0]["cu_seq_lens_q"].tolist() == [0, 3, 5, 8, 16]
    assert filled.tokens == plain.tokens == 8
    assert torch.equal(filled.targets, plain.targets)
    assert torch.equal(filled.ends, plain.ends)
    model = CausalModelLoader().open(str(tiny_model), ModelSettings(model=str(tiny_model), device="cpu"))
    model.load()
    found = []
    for batch in (plain, filled):
        model.network.zero_grad()
        with using_attention(model.base, SdpaAttention().implementation("cpu")):
            loss = summed_cross_entropy(model.base, batch, 4)
        loss.backward()
        found.append([loss, *(parameter.grad for parameter in model.network.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_long_enough_or_learns_nothing_is_not_filled() -> None:
    assert collate([single([1, 2])], rows=2).inputs[0]["input_ids"].shape == (1, 2)
    assert collate([single([1, 2, 3], [IGNORE] * 3)], rows=2).inputs[0]["input_ids"].shape == (1, 3)
    alone = collate([single([1, 2, 3])], isolated=False, rows=2)
    assert [each["input_ids"].shape for each in alone.inputs] == [(1, 3)]


@pytest.mark.parametrize(
    ("device", "dtype", "rows"), [("cpu", torch.float32, 1), ("cpu", torch.bfloat16, 64), ("cuda", torch.bfloat16, 1)]
)
def test_rows_are_of_few_lengths_where_each_length_costs(device: str, dtype: torch.dtype, rows: int) -> None:
    assert rows_of_kernels(torch.device(device), dtype) == rows
