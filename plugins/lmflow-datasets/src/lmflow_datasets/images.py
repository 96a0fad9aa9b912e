"""Images beside the messages of a row, each for a place in them: ``<image>`` in a text, or a part without a source.

A row that has neither ``image`` nor ``images`` is text, and so is ``<image>`` in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmflow_core.api import ImagePart, Message
from lmflow_datasets.fields import type_name

PLACE = "<image>"
FIELDS = ("images", "image")
# What a part without a source is read as, until the row's images are known.
WAITING = ImagePart("")


def has_images(row: Mapping[str, Any]) -> bool:
    """Whether a row has a field for images, which may be an empty list."""
    return any(row.get(name) is not None for name in FIELDS)


def images(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths and addresses of a row's images, of which there may be none.

    Raises:
        ValueError: it has two fields of them, or one is neither path nor address.
    """
    names = [name for name in FIELDS if row.get(name) is not None]
    if len(names) > 1:
        raise ValueError("the row has both 'image' and 'images': leave one out")
    return tuple(_source(item, name) for name in names for item in _listed(row[name]))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _source(item: object, name: str) -> str:
    if isinstance(item, Mapping) and item.get("bytes") is None:
        item = next((item[key] for key in ("path", "url") if item.get(key)), None)
    if not isinstance(item, str) or not item:
        what = (
            "bytes within the row" if isinstance(item, Mapping) else "an empty text" if item == "" else type_name(item)
        )
        raise ValueError(f"the field {name!r} must hold paths or addresses of images, not {what}")
    return item


def with_images(messages: Sequence[Message], row: Mapping[str, Any], *, lead: bool = False) -> tuple[Message, ...]:
    """Return messages with the row's images in their places, in order.

    Args:
        messages: as they were read; without images of the row their texts stay as they are.
        row: that they are of.
        lead: images go before the first user's message where it has no place for any.

    Raises:
        ValueError: there are more places than images, or fewer.
    """
    given = images(row)
    parted = [_parted(message) if has_images(row) else message for message in messages]
    places = sum(part is WAITING for message in parted for part in message.parts)
    if lead and not places:
        return _led(messages, given)
    if places != len(given):
        raise ValueError(_uneven(places, given, row))
    remaining = iter(given)
    return tuple(_filled(message, remaining) for message in parted)


def _uneven(places: int, given: Sequence[str], row: Mapping[str, Any]) -> str:
    if not has_images(row):
        return "an image in 'content' has no path and no address: give one as 'image', 'path' or 'url', or in 'images'"
    name = next(name for name in FIELDS if row.get(name) is not None)
    return (
        f"the messages have {places} place{'s' * (places != 1)} for images ({PLACE} in a text, or an image part with "
        f"no source), and the field {name!r} has {len(given)}: there must be as many"
    )


def _parted(message: Message) -> Message:
    if isinstance(message.content, str) and PLACE not in message.content:
        return message
    parts: list[str | ImagePart] = []
    for part in message.parts:
        parts += _split(part) if isinstance(part, str) else [part]
    return replace(message, content=tuple(parts))


def _split(text: str) -> Iterator[str | ImagePart]:
    for at, piece in enumerate(text.split(PLACE)):
        if at:
            yield WAITING
        if piece:
            yield piece


def _filled(message: Message, remaining: Iterator[str]) -> Message:
    if isinstance(message.content, str):
        return message
    return replace(
        message, content=tuple(ImagePart(next(remaining)) if part is WAITING else part for part in message.content)
    )


def _led(messages: Sequence[Message], given: Sequence[str]) -> tuple[Message, ...]:
    if not given:
        return tuple(messages)
    first = next(at for at, message in enumerate(messages) if message.role == "user")
    shown = (*map(ImagePart, given), *messages[first].parts)
    return (*messages[:first], replace(messages[first], content=shown), *messages[first + 1 :])
