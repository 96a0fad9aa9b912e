"""Plain decoding: one token per pass, with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import DynamicCache

from lmflow_core.api import BatchLimits, DecodeStep, DecodingRequest, ModelServices
from lmflow_transformers.batching.batch import SharedBatch, open_shared_batch
from lmflow_transformers.batching.choosing import TokenChooser
from lmflow_transformers.batching.texts import WholeText
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.images import check_images, shown_images
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.processing import check_sampling


class SamplingDecoder:
    """Samples each token from the model's processed distribution. Satisfies ``BatchDecoder``.

    Another one that chooses its tokens otherwise has another :meth:`chooser`.
    """

    def __init__(self, options: SamplingOptions | None = None) -> None:
        self.options = options or SamplingOptions()

    def prepare(self, model: CausalModel, services: ModelServices) -> None:
        """Check the options: every causal model can be sampled from.

        Raises:
            RequestError: the options cannot be followed with this model; the message names which.
        """
        check_sampling(model, self.options)

    @torch.inference_mode()
    def decode(self, model: CausalModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield one token at a time."""
        check_images(model, request)
        kept = for_decoding(model.network, DynamicCache(config=model.base.config))
        shown = shown_images(model, request)

        seen = 0

        def read(fresh: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            inputs = shown.inputs(seen, fresh.shape[1])
            seen += fresh.shape[1]
            with shown.attended():
                output = model.network(input_ids=fresh, logits_to_keep=1, **inputs, **kept)
            logits: torch.Tensor = output.logits[:, -1].float()
            return logits

        yield from chosen_tokens(self.chooser(model, request), read, request, model.device)

    def open_batch(self, model: CausalModel, limits: BatchLimits) -> SharedBatch | None:
        """Return a batch whose answers share the passes of the model; None where this model keeps no texts apart."""
        return open_shared_batch(model, limits)

    def layout(self, model: CausalModel) -> WholeText:
        """Return how the texts of a batch are kept."""
        return WholeText()

    def chooser(self, model: CausalModel, request: DecodingRequest) -> TokenChooser:
        """Return what chooses the tokens of an answer of a batch."""
        return TokenChooser(model, self.options, request)


def chosen_tokens(
    chooser: TokenChooser,
    read: Callable[[torch.Tensor], torch.Tensor],
    request: DecodingRequest,
    device: torch.device,
) -> Iterator[DecodeStep]:
    """Yield one token at a time behind a prompt until a stop id (which is yielded last) or the limit.

    Args:
        chooser: of the tokens of the answer.
        read: from the ids (1, new), int64, that it has not been given before to the logits (1, vocabulary), float32,
            behind the last of them.
        request: what is sampled.
        device: where the ids are.
    """
    ids = list(request.prompt)
    fresh = ids
    for _ in range(request.max_new_tokens):
        step = chooser.choose(ids, (), read(torch.tensor([fresh], device=device)))
        fresh = list(step.ids)
        ids += fresh
        yield step
        if step.ids[-1] in request.stop_ids:
            return
