"""Pixels and positions of the images of a batch, made by the model's own processor when it is collated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lmflow_core.api import EncodedSequence, LmflowError, Media
from lmflow_multimodal.pictures import PictureLimits, open_picture
from lmflow_multimodal.processor import placeholder, processed, sees_ahead

# What a processor makes of a text; a batch has ids of its own.
_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
_GRIDS = "image_grid_thw"


class ProcessorInputs:
    """What a network takes of the images of some sequences that lie end to end.

    Args:
        processor: of the model.
        config: of the model.
        limits: which pictures are opened.
    """

    def __init__(self, processor: Any, config: Any, limits: PictureLimits) -> None:
        self._processor = processor
        self._limits = limits
        self._placeholder = placeholder(processor, config)
        self._image_ids = torch.tensor(processor.image_token_ids)
        self._token_types = sees_ahead(processor)
        self._positions: Any = None

    def fit(self, network: Any) -> None:
        """Learn from a loaded network which positions it takes."""
        self._positions = getattr(network.base_model, "get_rope_index", None)

    def __call__(self, sequences: Sequence[EncodedSequence]) -> Mapping[str, torch.Tensor]:
        """Return the pixel values of all images, in order, and what belongs to them.

        Where a model counts positions along three axes, also ``position_ids`` (3, 1, T), each sequence's as if it stood
        alone; where the tokens of an image see each other, ``token_type_ids`` (1, T), 1 for these.

        Raises:
            LmflowError: an image cannot be read any more, or is another one than was encoded.
        """
        inputs = self._pixels([media for sequence in sequences for media in sequence.media])
        types = [self._types(sequence) for sequence in sequences]
        if self._token_types:
            inputs["token_type_ids"] = torch.cat(types)[None]
        if self._positions is not None and _GRIDS in inputs:
            inputs["position_ids"] = torch.cat([*self._axes(sequences, types, inputs[_GRIDS])], dim=-1)
        return inputs

    def _pixels(self, media: Sequence[Media]) -> dict[str, torch.Tensor]:
        if not media:
            return {}
        images = [self._opened(each) for each in media]
        made = processed(self._processor, self._placeholder * len(images), images)
        return {name: value for name, value in made.items() if name not in _OF_TEXT}

    def _opened(self, media: Media) -> Any:
        try:
            picture = open_picture(media.source, self._limits)
        except ValueError as error:
            raise LmflowError(str(error)) from error
        if picture.digest != media.digest:
            raise LmflowError(f"the image {media.source[:120]!r} has changed since it was encoded: start again")
        return picture.image

    def _types(self, sequence: EncodedSequence) -> torch.Tensor:
        """Return (tokens,): 1 where a token stands for a part of an image, else 0."""
        types = torch.zeros(len(sequence.input_ids), dtype=torch.long)
        ids = torch.tensor(list(sequence.input_ids), dtype=torch.long)
        for media in sequence.media:
            place = slice(media.start, media.start + media.tokens)
            types[place] = torch.isin(ids[place], self._image_ids).long()
        return types

    def _axes(
        self, sequences: Sequence[EncodedSequence], types: Sequence[torch.Tensor], grids: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        """Yield the positions (3, 1, tokens) of each sequence."""
        first = 0
        for sequence, kinds in zip(sequences, types, strict=True):
            images = len(sequence.media)
            if images:
                ids = torch.tensor([list(sequence.input_ids)])
                own = grids[first : first + images]
                positions, _ = self._positions(ids, image_grid_thw=own, mm_token_type_ids=kinds[None].int())
                yield positions.long()
            else:
                yield torch.arange(len(sequence.input_ids)).expand(3, 1, -1)
            first += images
