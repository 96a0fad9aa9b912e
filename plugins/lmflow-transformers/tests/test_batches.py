"""Batches: sequences end to end, with their boundaries, their groups and their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, Media
from lmflow_core.testing.jobs import single
from lmflow_transformers.batches import Batch, collate

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
