"""Contents of messages: a text, or OpenAI's list of parts, texts and images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import ImagePart
from lmflow_datasets.fields import mapping, text
from lmflow_datasets.images import WAITING

_IMAGE_TYPES = ("image", "image_url")
_SOURCES = ("image_url", "image", "path", "url")


def content(item: Mapping[str, Any], *, allow_empty: bool) -> str | tuple[str | ImagePart, ...]:
    """Return the content of a message: its parts where one of them is an image, else a text.

    An image without a source is one of those beside the messages, for :func:`lmflow_datasets.images.with_images`.

    Raises:
        ValueError: the content is missing or empty, or a part is neither text nor an image.
    """
    if not isinstance(item.get("content"), list):
        return text(item, "content", allow_empty=allow_empty)
    parts = tuple(_part(mapping(part, "a part of 'content'")) for part in item["content"])
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else parts


def _part(part: Mapping[str, Any]) -> str | ImagePart:
    kind = part.get("type")
    if kind == "text":
        return text(part, "text", allow_empty=True)
    if kind in _IMAGE_TYPES:
        return _image(part)
    raise ValueError(f"a part of 'content' has the type {kind!r}; it must be text, image or image_url")


def _image(part: Mapping[str, Any]) -> ImagePart:
    given = next((part[name] for name in _SOURCES if part.get(name)), None)
    if given is None and part["type"] == "image":
        return WAITING
    if isinstance(given, Mapping):
        given = given.get("url") or given.get("path")
    if not isinstance(given, str) or not given:
        raise ValueError("an image in 'content' has no path and no address: give one as 'image', 'path' or 'url'")
    return ImagePart(given)
