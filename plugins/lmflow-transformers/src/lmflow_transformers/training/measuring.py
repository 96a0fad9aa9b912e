"""What a network gives for the data of a job before it trains, such as the log-probabilities of a reference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from lmflow_core.api import IGNORE, EncodedDataset, EncodedExample, EncodedSequence, World
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.isolation import Packing, masked_attention, packing_of
from lmflow_transformers.models import CausalModel
from lmflow_transformers.sharding import gathered_as_needed
from lmflow_transformers.training.accompanying import accompanied, accompanying_image
from lmflow_transformers.training.job import TorchJob
from lmflow_transformers.training.micro_batches import micro_batches

# From a network and a batch to numbers: one for each sequence, or for each labelled token.
Measure = Callable[[Any, Batch], torch.Tensor]
_FETCHED = 64
_ON_CPU, _ELSEWHERE = 1024, 8192


def measure_sequences(
    job: TorchJob,
    examples: EncodedDataset | Sequence[EncodedExample],
    measure: Measure,
    model: CausalModel | None = None,
    *,
    whole: bool = False,
) -> list[tuple[float, ...]]:
    """Return what a network gives for each sequence of each example, computed as in training but without gradients.

    Every process measures a share, and has all of it in the end. A rollout may measure too, while the run trains.

    Args:
        job: whose attention and processes are used.
        examples: any number, the same in all processes.
        measure: from the transformers model, in evaluation mode, and a batch to a number for each sequence.
        model: loaded; the job's own when None.
        whole: its weights are whole in every process, though its plan spreads them, as they are within a rollout.
    """
    return _measured(job, examples, measure, model or job.model, whole, _sequences)


def measure_tokens(
    job: TorchJob,
    examples: EncodedDataset | Sequence[EncodedExample],
    measure: Measure,
    model: CausalModel | None = None,
    *,
    whole: bool = False,
) -> list[tuple[float, ...]]:
    """Return what a network gives for each learned token of each example; see :func:`measure_sequences`."""
    return _measured(job, examples, measure, model or job.model, whole, _learned_tokens)


def _sequences(example: EncodedExample) -> int:
    return len(example.sequences)


def _learned_tokens(example: EncodedExample) -> int:
    # Nothing predicts the first token of a sequence.
    return sum(label != IGNORE for sequence in example.sequences for label in sequence.labels[1:])


def _measured(
    job: TorchJob,
    examples: EncodedDataset | Sequence[EncodedExample],
    measure: Measure,
    model: CausalModel,
    whole: bool,
    count: Callable[[EncodedExample], int],
) -> list[tuple[float, ...]]:
    if not len(examples):
        return []
    spread = model.plan.sharded and not whole
    mine: dict[int, tuple[float, ...]] = {}
    with torch.no_grad(), _measuring(model, job.attention, spread) as packing:
        image = accompanying_image(job, [examples], packing.isolated) if spread else None
        for positions in _shares(len(examples), job.world, job.settings.batch_size if spread else None):
            # A process that is done goes on with the others, whose passes need its part of spread weights.
            fetched = [examples[position] for position in positions] or [examples[0]]
            parts = [fetched] if spread else _parts(model, fetched)
            values = [value for part in parts for value in _values(model, part, packing, measure, count, image)]
            mine.update(zip(positions, values, strict=False))
    found = {position: values for share in job.engine.all_gather(mine) for position, values in share.items()}
    return [found[position] for position in range(len(examples))]


def _shares(examples: int, world: World, size: int | None) -> Iterator[range]:
    """Yield the positions of this process, some at a time, every process equally often where a ``size`` is given."""
    mine = range(world.rank, examples, world.size)
    together = size or _FETCHED
    most = len(range(0, examples, world.size)) if size else len(mine)
    for start in range(0, most, together):
        yield mine[start : start + together]


def _parts(model: CausalModel, examples: list[EncodedExample]) -> Iterator[list[EncodedExample]]:
    return micro_batches(examples, _ON_CPU if model.device.type == "cpu" else _ELSEWHERE)


def _values(
    model: CausalModel,
    examples: list[EncodedExample],
    packing: Packing,
    measure: Measure,
    count: Callable[[EncodedExample], int],
    image: EncodedSequence | None,
) -> Iterator[tuple[float, ...]]:
    beside = accompanied(examples, image)
    inputs = model.media_inputs
    batch = collate(examples, **packing._asdict(), media_inputs=inputs, beside=beside).to(model.device)
    values = iter(measure(model.base, batch).tolist())
    return (tuple(itertools.islice(values, count(example))) for example in examples)


@contextmanager
def _measuring(model: CausalModel, packed: str, spread: bool) -> Iterator[Packing]:
    """Set a network for measuring, for the time of the context; tell how its batches are collated."""
    base, training = model.base, model.network.training
    model.network.eval()
    gathered = gathered_as_needed(base) if spread else nullcontext()
    try:
        with gathered:
            packing = packing_of(base, packed)
            attention = packed if packing.isolated else masked_attention(base)
            with using_attention(base, attention), _autocast(model):
                yield packing
    finally:
        model.network.train(training)


def _autocast(model: CausalModel) -> AbstractContextManager[Any]:
    computed = model.plan.compute_dtype
    return nullcontext() if computed is None else torch.autocast(model.device.type, getattr(torch, computed))
