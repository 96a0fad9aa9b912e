"""A batch that goes through the network in micro-batches, so that the activations of one exist at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmflow_core.api import EncodedExample, RequestError

_ON_CPU = 1024


def tokens_per_micro_batch(asked: int | None, device: torch.device, alone: bool) -> int | None:
    """Return how many tokens go through the network at a time; None is a whole batch.

    A processor is as quick with a thousand tokens as with more; a GPU is not. Several processes, and DeepSpeed, count
    passes, which batches of one number of examples need not have the same number of.

    Args:
        asked: what was asked for, if anything.
        device: where the model trains.
        alone: whether one process trains, without DeepSpeed.

    Raises:
        RequestError: micro-batches are asked for where they cannot be.
    """
    if alone:
        return _ON_CPU if asked is None and device.type == "cpu" else asked
    if asked is not None:
        raise RequestError(
            "--micro-batch-tokens splits the batches of one process without DeepSpeed: leave it out, or lower "
            "--batch-size and raise --gradient-accumulation-steps"
        )
    return None


def micro_batches(examples: Sequence[EncodedExample], most: int | None) -> Iterator[list[EncodedExample]]:
    """Split examples into those that go through the network at a time, so that only their activations exist.

    Args:
        examples: in their order.
        most: tokens of a micro-batch, unless a single example has more; None is no limit.

    Yields:
        As few micro-batches as can be in this order.
    """
    batch: list[EncodedExample] = []
    tokens = 0
    for example in examples:
        if batch and most is not None and tokens + example.tokens > most:
            yield batch
            batch, tokens = [], 0
        batch.append(example)
        tokens += example.tokens
    yield batch
