"""What a disk refuses, told as every other refusal of the system is."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def refusals_as_os_errors() -> Iterator[None]:
    """Turn what safetensors and tokenizers raise, where a write is refused, into the system's own kind of error.

    Raises:
        OSError: the write was refused.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error
    except Exception as error:
        # Tokenizers raise the most general kind of all, with the system's number in its text.
        number = _NUMBER.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error
