"""Marks in the place of contents, by which what a Jinja template writes is told from what the data says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lmflow_core.contracts.examples import ImagePart, Message, Part

INSTEAD = "choose a template that LMFlow knows with --template NAME"
_MARK = "LMFLOW{}X"
_MARKS = re.compile(_MARK.format(r"(\d+)"))
# What a template is given for an image: it may not depend on where that lies.
_IMAGE = ImagePart("image")


@dataclass(frozen=True)
class Piece:
    """A part of a rendering, of the template or from the data, and what stands for it where contents are marked."""

    marked: str
    text: str
    from_data: bool = False
    image: ImagePart | None = None


class _Marked(NamedTuple):
    """What a mark stands for: a text of a message, which may be its reasoning."""

    at: int
    text: str
    is_reasoning: bool


class MarkedMessages:
    """A conversation, and the same with marks in place of its texts.

    White space gets none, as templates treat it as they do nothing. Images are no texts, and stay.

    Attributes:
        plain: the messages, all their images alike.
        marked: the same with marks.

    Raises:
        ValueError: a text looks like a mark.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        texts = [text for message in messages for text in (message.text, message.reasoning or "")]
        if any(map(_MARKS.search, texts)):
            raise ValueError(f"a content holds {_MARK.format('1')!r}, with which LMFlow marks contents: {INSTEAD}")
        self._marks: list[_Marked] = []
        self.images = [part for message in messages for part in message.parts if isinstance(part, ImagePart)]
        self.plain = [_plain(message) for message in messages]
        self.marked = [self._marked(at, message) for at, message in enumerate(self.plain)]

    def _marked(self, at: int, message: Message) -> Message:
        if isinstance(message.content, str):
            content: str | tuple[Part, ...] = self._mark(at, message.content)
        else:
            content = tuple(self._mark(at, part) if isinstance(part, str) else part for part in message.content)
        reasoning = message.reasoning and self._mark(at, message.reasoning, is_reasoning=True)
        return replace(message, content=content, reasoning=reasoning)

    def _mark(self, at: int, text: str, *, is_reasoning: bool = False) -> str:
        if not text.strip():
            return text
        self._marks.append(_Marked(at, text, is_reasoning))
        return _MARK.format(len(self._marks) - 1)

    def contents(self, at: int) -> list[str]:
        """Return the marks of a message's content, in order."""
        found = (n for n, mark in enumerate(self._marks) if mark.at == at and not mark.is_reasoning)
        return [_MARK.format(number) for number in found]

    def owners(self, skeleton: str, start: int, end: int) -> Iterator[int]:
        """Yield which messages the marks between two places of a marked rendering are of."""
        for found in _MARKS.finditer(skeleton, start, max(start, end)):
            yield self._marks[int(found[1])].at

    def aligned(self, skeleton: str, text: str, placeholder: str | None) -> list[Piece]:
        """Return the pieces of a rendering, found with the marks of its skeleton.

        Args:
            skeleton: the rendering with marks.
            text: the rendering.
            placeholder: what the template writes for an image; None where that is not known.

        Raises:
            ValueError: the template changes a content, writes something else for it, or has no place for an image.
        """
        parts = _MARKS.split(skeleton)
        pieces = [Piece(parts[0], parts[0])]
        position = len(parts[0])
        for number, literal in zip(parts[1::2], parts[2::2], strict=True):
            content = _found(self._marks[int(number)].text, literal, text, position)
            pieces += [Piece(_MARK.format(number), content, from_data=True), Piece(literal, literal)]
            position += len(content) + len(literal)
        if "".join(piece.text for piece in pieces) != text:
            raise ValueError(f"the chat template changes the text of a message: {INSTEAD}")
        return [*self._with_images(pieces, placeholder)] if self.images else pieces

    def _with_images(self, pieces: Sequence[Piece], placeholder: str | None) -> Iterator[Piece]:
        """Cut the template's pieces where an image stands: its first place is the first image's, and so on."""
        if not placeholder:
            raise ValueError(
                "an image stands in a message, and the model takes none: choose one that does, or leave it out"
            )
        places = sum(piece.text.count(placeholder) for piece in pieces if not piece.from_data)
        if places != len(self.images):
            raise ValueError(
                f"the chat template writes {placeholder!r} {places} times for {len(self.images)} images: {INSTEAD}"
            )
        images = iter(self.images)
        for piece in pieces:
            if piece.from_data:
                yield piece
                continue
            for at, text in enumerate(piece.text.split(placeholder)):
                if at:
                    yield Piece(placeholder, placeholder, image=next(images))
                yield Piece(text, text)


def _plain(message: Message) -> Message:
    """Return a message whose content is one text where it holds no image, and whose images are all the same."""
    if isinstance(message.content, str):
        return message
    if not any(isinstance(part, ImagePart) for part in message.content):
        return replace(message, content=message.text)
    return replace(message, content=tuple(_IMAGE if isinstance(part, ImagePart) else part for part in message.content))


def _found(content: str, literal: str, text: str, position: int) -> str:
    """Return a content as it stands in a text, before a literal of the template: stripped, or as in JSON."""
    forms = [content, content.rstrip(), content.lstrip(), content.strip(), content.strip("\n"), content.lstrip("\n")]
    for form in [*forms, json.dumps(content, ensure_ascii=False)[1:-1]]:
        if text.startswith(form + literal, position):
            return form
    raise ValueError(f"the chat template changes the text of a message: {INSTEAD}")
