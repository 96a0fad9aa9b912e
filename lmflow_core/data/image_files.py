"""A first look at images, without a library that decodes them: are they there, of which kind, and whole?

This finds what goes wrong with files: missing ones, pages of errors in the place of a picture, downloads that were cut
off. What decodes an image may refuse more.
"""

from __future__ import annotations

import base64
import binascii
import stat
import zlib
from pathlib import Path

from lmflow_core.data.image_paths import is_address
from lmflow_core.errors import printable

_SHOWN = 200
_PNG = b"\x89PNG\r\n\x1a\n"


def check_image(source: str) -> None:
    """Look at an image; one on a server is not fetched.

    Raises:
        ValueError: it is missing, no image, or incomplete; the message names it and tells why.
    """
    if source.lower().startswith(("http://", "https://")):
        return
    problem = _problem(source)
    if problem is not None:
        raise ValueError(f"the image {printable(source, _SHOWN)!r} {problem}")


def _problem(source: str) -> str | None:
    try:
        content = _content(source)
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    except ValueError as error:
        return str(error)
    return _problem_of(content)


def _content(source: str) -> bytes:
    if is_address(source):
        head, comma, body = source.partition(",")
        if not (comma and head.lower().startswith("data:image/") and head.lower().endswith(";base64")):
            raise ValueError("has an address that is not read: give a path, or data:image/…;base64,")
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise ValueError(f"has an address whose base64 is wrong: {str(error).lower()}") from error
    path = Path(source)
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise ValueError("is not a file")
    return path.read_bytes()


def _problem_of(content: bytes) -> str | None:
    if not content:
        return "is empty"
    if content.startswith(_PNG):
        whole = _png_is_whole(content)
    elif content.startswith(b"\xff\xd8\xff"):
        whole = _jpeg_is_whole(content)
    elif content.startswith((b"GIF87a", b"GIF89a")):
        whole = content.rstrip(b"\0").endswith(b";")
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        whole = len(content) >= int.from_bytes(content[4:8], "little") + 8
    elif content.startswith(b"BM"):
        whole = len(content) >= int.from_bytes(content[2:6], "little") > 0
    else:
        return "is not an image: it must be a PNG, JPEG, WebP, GIF or BMP"
    return None if whole else "is damaged: it ends before the image does"


def _png_is_whole(content: bytes) -> bool:
    """Whether all chunks are there, each with its checksum, up to the last."""
    at = len(_PNG)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8]
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether an end of image follows the scan; a small preview within the headers has an end of its own."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        if content[at + 1] == 0xDA:
            return content.rfind(b"\xff\xd9") > at
        if content[at + 1] == 0xFF:  # a filling byte
            at += 1
            continue
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return False
