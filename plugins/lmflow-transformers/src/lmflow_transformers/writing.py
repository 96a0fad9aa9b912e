"""What a disk refuses, told as every other refusal of the system is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError


@contextmanager
def refusals_as_os_errors() -> Iterator[None]:
    """Turn what safetensors raises, where a write is refused, into the system's own kind of error.

    Raises:
        OSError: the write was refused.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error
