"""Where the images of an example lie: their paths are those beside the data file, where there is such a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lmflow_core.contracts.examples import (
    Conversation,
    Example,
    ImagePart,
    ImageText,
    Judged,
    Message,
    Part,
    Preference,
    Prompt,
)

T = TypeVar("T", bound=Example)


def with_found_images(example: T, file: Path) -> T:
    """Return an example whose relative paths of images lead to files beside a data file, where there are any.

    Any other path is left as it is, and so is an address.

    Args:
        example: as it was read.
        file: the data file.
    """
    # Most data holds no image, and is not to be copied.
    if isinstance(example, Conversation | Prompt):
        if all(isinstance(message.content, str) for message in example.messages):
            return example
        return replace(example, messages=tuple(_message(message, file) for message in example.messages))
    if isinstance(example, ImageText):
        return replace(example, images=tuple(_path(source, file) for source in example.images))
    if isinstance(example, Preference):
        chosen, rejected = (with_found_images(answer, file) for answer in (example.chosen, example.rejected))
        return replace(example, chosen=chosen, rejected=rejected)
    if isinstance(example, Judged):
        return replace(example, example=with_found_images(example.example, file))
    return example


def _message(message: Message, file: Path) -> Message:
    return replace(message, content=tuple(_part(part, file) for part in message.parts))


def _part(part: Part, file: Path) -> Part:
    return ImagePart(_path(part.source, file)) if isinstance(part, ImagePart) else part


def _path(source: str, file: Path) -> str:
    path = file.parent.absolute() / source
    try:
        return str(path) if path.is_file() else source
    except (OSError, ValueError):  # such as an image written into its own address
        return source
