"""Images to the tokens that stand for them, as a model's own processor says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lmflow_core.api import ImagePart
from lmflow_multimodal.pictures import PictureLimits, held_source, open_picture
from lmflow_multimodal.processor import placeholder, processed


class ProcessorMediaTokenizer:
    """Asks a processor of transformers. Satisfies ``MediaTokenizer``.

    Attributes:
        placeholder: what a chat template writes for an image.
    """

    def __init__(self, processor: Any, config: Any, limits: PictureLimits) -> None:
        """Ask a processor.

        Args:
            processor: of the model.
            config: of the model.
            limits: which pictures are opened.
        """
        self._processor = processor
        self._limits = limits
        self.placeholder = placeholder(processor, config)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the settings of the processor; the tokenizer has its own."""
        told = json.dumps([type(self._processor).__name__, self._processor.to_dict()], default=str)
        return hashlib.sha256((told + self.placeholder).encode()).hexdigest()[:16]

    @cached_property
    def around(self) -> tuple[str, str]:
        """White space that the processor puts around an image, as Gemma 3's does."""
        whole: str = getattr(self._processor, "full_image_sequence", "")
        return whole[: len(whole) - len(whole.lstrip())], whole[len(whole.rstrip()) :]

    def tokenize(self, image: ImagePart) -> tuple[Sequence[int], str]:
        """Return the ids that stand for an image, and a digest of its bytes.

        Raises:
            ValueError: the image cannot be read, or the processor refuses it.
        """
        picture = open_picture(image.source, self._limits)
        try:
            made = processed(self._processor, self.placeholder, [picture.image])
        except ValueError as error:
            raise ValueError(f"the image {image.source[:120]!r} cannot be taken: {error}") from error
        return self._without_around(made["input_ids"][0].tolist()), picture.digest

    def held(self, image: ImagePart) -> ImagePart:
        """Return an image that is at a server as one whose address holds its bytes; any other as it is.

        Raises:
            ValueError: it cannot be fetched, or may not be.
        """
        return ImagePart(held_source(image.source, self._limits))

    def _without_around(self, ids: list[int]) -> list[int]:
        before, behind = map(len, self._around_ids)
        return ids[before : len(ids) - behind]

    @cached_property
    def _around_ids(self) -> list[list[int]]:
        encode = self._processor.tokenizer
        return [encode(text, add_special_tokens=False).input_ids if text else [] for text in self.around]
