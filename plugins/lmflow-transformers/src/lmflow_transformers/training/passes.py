"""A batch that goes through the model in parts, so that the activations of one part exist at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch

from lmflow_core.api import RequestError

Batch = dict[str, torch.Tensor]
_ON_CPU = 1024
_BOUNDARIES = "cu_seq_lens_q"
_POSITIONS = "position_ids"


def tokens_per_pass(wanted: int | None, device: torch.device, alone: bool) -> int | None:
    """Return how many tokens go through the model at a time; None is a whole batch.

    A processor is as quick with a thousand tokens as with more; a GPU is not. Several processes, and DeepSpeed, count
    passes, which batches of one number of examples need not have the same number of.

    Args:
        wanted: what was asked for, if anything.
        device: where the model trains.
        alone: whether one process trains, without DeepSpeed.

    Raises:
        RequestError: parts are asked for where they cannot be.
    """
    if alone:
        return _ON_CPU if wanted is None and device.type == "cpu" else wanted
    if wanted is not None:
        raise RequestError(
            "--pass-tokens splits the batches of one process without DeepSpeed: leave it out, or lower --batch-size "
            "and raise --gradient-accumulation-steps"
        )
    return None


def parts_of(batch: Batch, most: int) -> Iterator[Batch]:
    """Split a batch of examples laid end to end into parts of whole examples.

    Args:
        batch: as of :func:`lmflow_transformers.packing.lay_out`; whatever else it holds is of shape (1, T).
        most: tokens a part has at most, unless a single example has more.

    Yields:
        Batches of the same form, as few as can be in this order of examples.
    """
    ends = batch[_BOUNDARIES].tolist()
    starts = [0]
    for before, end in pairwise(ends):
        if end - starts[-1] > most and before > starts[-1]:
            starts.append(before)
    for start, stop in pairwise([*starts, ends[-1]]):
        yield _part(batch, start, stop)


def one_by_one(batch: Batch) -> Iterator[Batch]:
    """Yield the examples of a batch each alone, without boundaries, for models that would not heed them."""
    for example in parts_of(batch, 1):
        yield {name: tensor for name, tensor in example.items() if name not in (_BOUNDARIES, _POSITIONS)}


def _part(batch: Batch, start: int, stop: int) -> Batch:
    ends = batch[_BOUNDARIES]
    part = {name: tensor[:, start:stop] for name, tensor in batch.items() if name != _BOUNDARIES}
    return {**part, _BOUNDARIES: ends[(ends >= start) & (ends <= stop)] - start}
