"""The bytes of a picture: from a file, from an address that holds them, or from a server."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat

from lmflow_multimodal.pictures.fetching import fetched
from lmflow_multimodal.pictures.limits import PictureLimits

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(data|file):", re.IGNORECASE)
_DATA = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)
_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)
# A pipe must not be waited for, and no terminal taken over, in the moment before it shows what was opened.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


def is_at_server(source: str) -> bool:
    """Whether a source is an http or https address."""
    return source.lower().startswith(("http://", "https://"))


def read_source(source: str, limits: PictureLimits) -> bytes:
    """Return the bytes of a picture.

    Raises:
        ValueError: there is none, it is too large, or it may not be read; the message goes on behind its name.
    """
    address = _ADDRESS.match(source)
    if address is None:
        return _of_file(source, limits.max_bytes)
    scheme = (address[1] or address[2]).lower()
    if scheme == "data":
        return _of_data(source, limits.max_bytes)
    if scheme not in ("http", "https"):
        raise ValueError(f"has an address of the kind {scheme}:, which is not opened: give a path or an http address")
    if not limits.fetch:
        raise ValueError("is at an address, and none is fetched unless you ask: add --fetch-images, or download it")
    return fetched(source, limits)


def _of_file(path: str, most: int) -> bytes:
    try:
        _check_is_file(os.stat(path).st_mode)
        descriptor = os.open(path, _FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            _check_is_file(found.st_mode)
            if found.st_size > most:
                raise ValueError(too_large(found.st_size, most))
            content = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > most:
        raise ValueError(too_large(len(content), most))
    return content


def _check_is_file(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(next((problem for test, problem in _KINDS if test(mode)), "is not a file"))


def _of_data(address: str, most: int) -> bytes:
    head = _DATA.match(address)
    if head is None:
        raise ValueError("has an address that holds no image: it must begin with data:image/…;base64,")
    length = (len(address) - head.end()) // 4 * 3
    if length > most + 2:
        raise ValueError(too_large(length, most))
    try:
        return base64.b64decode(address[head.end() :], validate=True)
    except binascii.Error as error:
        raise ValueError(f"has an address whose base64 is wrong: {str(error).lower()}") from error


def too_large(size: int, most: int) -> str:
    """Return what is wrong with a picture of so many bytes."""
    return f"has {size:,} bytes, more than the {most:,} that are read"
