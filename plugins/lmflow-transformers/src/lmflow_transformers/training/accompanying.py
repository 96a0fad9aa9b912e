"""Images for batches that have none, where processes compute in step: each then calls every part of the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lmflow_core.api import IGNORE, EncodedDataset, EncodedExample, EncodedSequence, RequestError
from lmflow_transformers.training.job import TorchJob

Examples = EncodedDataset | Sequence[EncodedExample]


def accompanying_image(job: TorchJob, several: Iterable[Examples], isolated: bool) -> EncodedSequence | None:
    """Return the first image of some data, as a sequence of which nothing is learned; None where none is needed.

    Weights or gradients that are spread are gathered layer by layer, by all processes at once. One whose batch has no
    image would leave out the layers that see, and wait for ever. Such a batch is accompanied by this image, whose
    gradients are zeros: what leads to text then has a gradient in every step, if only of zeros.

    Args:
        job: whose processes compute in step, or not.
        several: the data of the run.
        isolated: whether sequences are packed into one pass.

    Raises:
        RequestError: each sequence goes alone, and some have images and others none.
    """
    in_step = job.model.plan.sharded or job.model.plan.sharded_state
    if job.world.size == 1 or job.model.media_inputs is None or not in_step:
        return None
    shown = next((one for examples in several for one in _sequences(examples) if one.media), None)
    if shown is None:
        return None
    if not isolated and any(not one.media for examples in several for one in _sequences(examples)):
        raise RequestError(
            "this model takes each sequence alone, and weights or gradients are spread over processes that compute in "
            "step: some rows have images and others none, so leave one sort out, or take --engine torchrun"
        )
    media = shown.media[0]
    ids = list(shown.input_ids[media.start : media.start + media.tokens])
    return EncodedSequence(ids, [IGNORE] * len(ids), (replace(media, start=0),))


def accompanied(examples: Iterable[EncodedExample], image: EncodedSequence | None) -> EncodedSequence | None:
    """Return the image that goes with a batch of some examples: none where they have one themselves."""
    return None if any(one.media for example in examples for one in example.sequences) else image


def _sequences(examples: Examples) -> Iterable[EncodedSequence]:
    return (one for position in range(len(examples)) for one in examples[position].sequences)
