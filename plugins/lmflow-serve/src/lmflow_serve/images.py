"""The images of a request: which addresses are taken, how many and how large, and which of them is at fault."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lmflow_core.api import ImagePart, MediaTokenizer, Message, printable
from lmflow_serve.errors import ApiError, invalid

# What a client names is never a file of this machine.
_TAKEN = re.compile(r"data:image/|https?://", re.IGNORECASE)
_SHOWN = 120


def read_image(value: object, where: str) -> ImagePart:
    """Read what a part of the type ``image_url`` holds; ``where`` names the part in errors.

    Raises:
        ApiError: it has no address of an image, or asks for a way to see it that there is not.
    """
    given = dict(value) if isinstance(value, dict) else {}
    url = given.pop("url", None)
    if not isinstance(url, str):
        raise invalid(f'{where} must be {{"type": "image_url", "image_url": {{"url": "data:image/…"}}}}', "messages")
    if given.pop("detail", None) not in (None, "auto"):
        raise invalid(f"{where}.image_url.detail may be auto only", "messages", "unsupported_parameter")
    for name in given:
        raise invalid(f"{where}.image_url.{printable(name, _SHOWN)} is not supported", "messages")
    if _TAKEN.match(url) is None:
        shown = printable(url, _SHOWN)
        raise invalid(f"{where}: the image {shown!r} is refused: give data:image/…;base64,… and no path", "messages")
    return ImagePart(url)


def images_of(messages: Sequence[Message]) -> Iterator[tuple[str, ImagePart]]:
    """Yield where each image of some messages stands, and the image."""
    for number, message in enumerate(messages):
        for at, part in enumerate(message.parts):
            if isinstance(part, ImagePart):
                yield f"messages[{number}].content[{at}]", part


class Images:
    """Sees to the images of requests.

    Args:
        media: of the model; None where it sees nothing.
        most: how many images the answers to one request may be to, each counted for each answer.
        most_bytes: how long their addresses may be in all, with what they hold.
    """

    def __init__(self, media: MediaTokenizer | None, most: int, most_bytes: int) -> None:
        self._media = media
        self._most = most
        self._most_bytes = most_bytes

    @property
    def room(self) -> int:
        """How many bytes of a body may be images."""
        return 0 if self._media is None else self._most_bytes

    def check(self, messages: Sequence[Message], answers: int) -> int:
        """Check that a model takes the images of some messages, which get so many answers; return their bytes.

        Raises:
            ApiError: it sees nothing, or they are too many or too long.
        """
        found = [*images_of(messages)]
        if found and self._media is None:
            raise invalid(f"{found[0][0]} is an image, and this model takes text only", "messages")
        if len(found) * answers > self._most:
            each = f" for each of {answers} answers" if answers > 1 else ""
            raise invalid(f"'messages' has {len(found)} images{each}; this server takes {self._most}", "messages")
        return self._measured([part for _, part in found])

    def fetched(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return messages whose images are held by their addresses; a server may have to be waited for.

        Raises:
            ApiError: one cannot be fetched or may not be, or they are too long.
        """
        places = iter([*images_of(messages)])
        held: list[ImagePart] = []
        for where, part in places:
            assert self._media is not None, "images were checked"
            try:
                held.append(self._media.held(part))
            except ValueError as error:
                raise invalid(f"{where}: {error}", "messages") from error
            self._measured(held)
        left = iter(held)
        return tuple(_with_images(message, left) for message in messages)

    def blamed(self, messages: Sequence[Message], error: ValueError) -> ApiError:
        """Return the error of a request whose messages no prompt could be made of, which names an image at fault."""
        for where, part in images_of(messages):
            assert self._media is not None, "images were checked"
            try:
                self._media.tokenize(part)
            except ValueError as own:
                return invalid(f"{where}: {own}", "messages")
        return invalid(str(error), "messages")

    def _measured(self, images: Sequence[ImagePart]) -> int:
        size = sum(len(image.source) for image in images)
        if size > self._most_bytes:
            raise ApiError(413, f"the images of the request are longer than {self._most_bytes} bytes", param="messages")
        return size


def are_fetched(messages: Sequence[Message]) -> bool:
    """Whether an image of some messages is at a server."""
    return any(part.source[:5].lower() != "data:" for _, part in images_of(messages))


def _with_images(message: Message, images: Iterator[ImagePart]) -> Message:
    if isinstance(message.content, str):
        return message
    content = tuple(next(images) if isinstance(part, ImagePart) else part for part in message.content)
    return replace(message, content=content)
