"""Where the images of an example lie: beside the data file, or in a folder that the user allows, and nowhere else.

Rows are other people's words. A path in one must not read what its author has no business with, so one that leads out
of these folders, by its steps or through a link, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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
    parts,
)
from lmflow_core.errors import printable

T = TypeVar("T", bound=Example)

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:|file:", re.IGNORECASE)
_SHOWN = 200


def is_address(source: str) -> bool:
    """Whether an image is at an address, or written into one, and not at a path."""
    return _ADDRESS.match(source) is not None


def image_sources(example: Example) -> Iterator[str]:
    """Yield the path or address of each image of an example, as often as it is shown."""
    for part in parts(example):
        if isinstance(part, ImageText):
            yield from part.images
        elif isinstance(part, Conversation | Prompt):
            for message in part.messages:
                if not isinstance(message.content, str):
                    yield from (each.source for each in message.content if isinstance(each, ImagePart))


class ImageFolders:
    """The folders that the images of one data file are read from."""

    def __init__(self, file: Path, allowed: Sequence[Path] = ()) -> None:
        """Read from the folder of a data file, and from those that are ``allowed`` besides."""
        self._folders = [file.parent.absolute(), *(folder.expanduser().absolute() for folder in allowed)]
        self._real = [folder.resolve() for folder in self._folders]

    def placed(self, example: T) -> T:
        """Return an example whose paths of images are whole: found in the first folder that has them.

        One that is nowhere is taken to be beside the data file. Addresses stay as they are.

        Raises:
            ValueError: a path leads out of the folders.
        """
        # Most data holds no image, and is not to be copied.
        if isinstance(example, Conversation | Prompt):
            if all(isinstance(message.content, str) for message in example.messages):
                return example
            return replace(example, messages=tuple(map(self._message, example.messages)))
        if isinstance(example, ImageText):
            return replace(example, images=tuple(map(self._path, example.images)))
        if isinstance(example, Preference):
            return replace(example, chosen=self.placed(example.chosen), rejected=self.placed(example.rejected))
        if isinstance(example, Judged):
            return replace(example, example=self.placed(example.example))
        return example

    def _message(self, message: Message) -> Message:
        if isinstance(message.content, str):
            return message
        return replace(message, content=tuple(map(self._part, message.content)))

    def _part(self, part: Part) -> Part:
        return ImagePart(self._path(part.source)) if isinstance(part, ImagePart) else part

    def _path(self, source: str) -> str:
        if is_address(source):
            return source
        try:
            # An absolute path stands for itself, whatever it is joined to.
            candidates = [folder / source for folder in self._folders]
            path = next((path for path in candidates if path.is_file()), candidates[0])
            real = path.resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or links in a circle
            raise ValueError(f"the image {printable(source, _SHOWN)!r} has no path that can be read") from error
        if not any(real.is_relative_to(folder) for folder in self._real):
            raise ValueError(self._leads_out(source, path, real))
        return str(path)

    def _leads_out(self, source: str, path: Path, real: Path) -> str:
        shown = repr(printable(source, _SHOWN))
        way = f"{shown} is a link to {real}" if path.is_symlink() else f"{shown} lies in {real.parent}"
        folders = ", ".join(map(str, self._folders))
        return (
            f"the image {way}, outside of {folders}: images are read from the folder of their data file and from those "
            "that you allow. If you trust the data, add --image-folder DIR with the folder of the image"
        )
