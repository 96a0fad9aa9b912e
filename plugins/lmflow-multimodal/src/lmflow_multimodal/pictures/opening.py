"""One way by which pictures are opened, whoever named them: every problem with one is a ValueError that tells why."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from lmflow_core.api import printable
from lmflow_multimodal.pictures.decoding import decoded
from lmflow_multimodal.pictures.limits import PictureLimits
from lmflow_multimodal.pictures.sources import is_at_server, read_source

# An image written into its own address may be a million characters long.
_SHOWN = 120


@dataclass(frozen=True)
class Picture:
    """A picture: hex SHA-256 digest of its bytes, and its pixels in RGB, turned as they are to be seen."""

    digest: str
    image: Image.Image


def open_picture(source: str, limits: PictureLimits | None = None) -> Picture:
    """Open a picture: a PNG, JPEG, WebP, GIF or BMP. Of one that moves, the first frame; transparency is put on white.

    Nothing global is changed, and several threads may open pictures at once.

    Args:
        source: a path, a ``data:image/…;base64,`` address, or an http(s) address where the limits allow one.
        limits: those of :class:`PictureLimits` where none are given.

    Raises:
        ValueError: there is no such picture, it is damaged, too large, of another kind, or may not be read.
    """
    limits = limits or PictureLimits()
    with _named(source):
        content = read_source(source, limits)
        return Picture(hashlib.sha256(content).hexdigest(), decoded(content, limits.max_pixels))


def held_source(source: str, limits: PictureLimits) -> str:
    """Return the source of a picture; of one that is at a server, the address that holds what the server sends.

    Raises:
        ValueError: it cannot be fetched, or may not be.
    """
    if not is_at_server(source):
        return source
    with _named(source):
        # Of which kind it is, its first bytes tell.
        return "data:image/fetched;base64," + base64.b64encode(read_source(source, limits)).decode()


@contextmanager
def _named(source: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"the image {printable(source, _SHOWN)!r} {error}") from error
