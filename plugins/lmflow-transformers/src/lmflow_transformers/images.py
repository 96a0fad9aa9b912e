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
        sequence: the prompt. All of its images are read in one pass.

    Attributes:
        end: where the tokens of its last image end.
    """

    def __init__(self, model: CausalModel, sequence: EncodedSequence) -> None:
        assert model.media_inputs is not None, "a prompt has images where a model made tokens of them"
        self._network = model.base
        made = {name: value.to(model.device) for name, value in model.media_inputs([sequence]).items()}
        self._positions: torch.Tensor | None = made.pop("position_ids", None)
        self._made: Mapping[str, Any] = made
        self._read = len(sequence.input_ids)
        self.end = sequence.media[-1].start + sequence.media[-1].tokens

    def inputs(self, seen: int, count: int) -> Mapping[str, Any]:
        """Return what the pass takes that reads the next ``count`` tokens behind the first ``seen``.

        Where a model counts positions along three axes, ``position_ids`` (3, 1, count) are among it.
        """
        shows = seen < self.end
        inputs = dict(self._made) if shows else {}
        if not shows:
            self._made = {}  # nothing reads the pixels again
        if self._positions is not None:
            inputs["position_ids"] = self._places(self._positions, seen, count)
        return inputs

    def _places(self, prompt: torch.Tensor, seen: int, count: int) -> torch.Tensor:
        """Return the positions of some tokens: those behind the prompt go on from the largest of it."""
        behind = max(0, seen + count - self._read)
        following = int(prompt.max()) + 1 + torch.arange(behind, device=prompt.device)
        going_on = following.expand(3, 1, -1)[..., max(0, seen - self._read) :]
        return torch.cat((prompt[..., seen : seen + count], going_on), dim=-1)

    def attended(self) -> AbstractContextManager[None]:
        """Return a context in which the network attends as its masks say, as tokens of an image may to later ones."""
        return using_attention(self._network, masked_attention(self._network))


class NoImages:
    """A prompt that shows none."""

    end = 0

    def inputs(self, seen: int, count: int) -> Mapping[str, Any]:
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
