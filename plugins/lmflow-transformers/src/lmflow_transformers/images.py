"""The images of a prompt that is answered: they are read with it, and the tokens behind go on from their positions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from lmflow_core.api import IGNORE, DecodingRequest, EncodedSequence, RequestError
from lmflow_transformers.attention import using_attention
from lmflow_transformers.isolation import masked_attention
from lmflow_transformers.models import CausalModel


class ShownImages:
    """What a network takes, beside ids, in the passes over a prompt with images and the tokens that follow.

    Args:
        model: loaded; it sees.
        sequence: the prompt.
    """

    def __init__(self, model: CausalModel, sequence: EncodedSequence) -> None:
        assert model.media_inputs is not None, "a prompt has images where a model made tokens of them"
        self._network = model.base
        made = model.media_inputs([sequence])
        self._first: Mapping[str, Any] | None = {name: value.to(model.device) for name, value in made.items()}
        positions = made.get("position_ids")
        self._next = None if positions is None else int(positions.max()) + 1

    def inputs(self, count: int) -> Mapping[str, Any]:
        """Return what the next pass takes, which is over so many tokens; the first one is over the prompt."""
        if self._first is not None:
            inputs, self._first = self._first, None
            return inputs
        if self._next is None:
            return {}
        positions = torch.arange(self._next, self._next + count, device=self._network.device)
        self._next += count
        return {"position_ids": positions.expand(3, 1, -1)}

    def attended(self) -> AbstractContextManager[None]:
        """Return a context in which the network attends as its masks say, as tokens of an image may to later ones."""
        return using_attention(self._network, masked_attention(self._network))


class NoImages:
    """A prompt that shows none."""

    def inputs(self, count: int) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def attended(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()


def shown_images(model: CausalModel, request: DecodingRequest) -> ShownImages | NoImages:
    """Return what a network takes of the images of a prompt.

    Raises:
        LmflowError: an image cannot be read any more.
    """
    if not request.media:
        return NoImages()
    ids = list(request.prompt)
    return ShownImages(model, EncodedSequence(ids, [IGNORE] * len(ids), request.media))


def check_images(model: CausalModel, request: DecodingRequest) -> None:
    """Check that images come with the tokens that stand for them.

    Raises:
        RequestError: they do not, as in training that samples answers; the model would see nothing, and not tell.
    """
    if not request.media and not model.media_ids.isdisjoint(request.prompt):
        raise RequestError("the prompt has the tokens of images without these: answers to images are not sampled here")
