"""What a stranger's code says, made safe to print."""

from __future__ import annotations

import textwrap
import traceback

from lmflow_core.errors import printable

_LONGEST = 300
_LONGEST_READ = 10_000


def one_line(error: BaseException) -> str:
    """Return the kind and message of an error as one short line, also where the error's own methods fail."""
    try:
        message = str.__str__(str(error))[:_LONGEST_READ]
    except BaseException as failure:
        message = f"(no message: {_class_name(failure)} in its __str__)"
    text = textwrap.shorten(printable(" ".join(message.split())), _LONGEST, placeholder=" …")
    name = printable(_class_name(error))
    return f"{name}: {text}" if text else name


def full_traceback(error: BaseException) -> str:
    """Return the traceback of an error, or why there is none."""
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
        return "\n".join(printable(line) for line in lines) + "\n"
    except BaseException as failure:
        return f"its traceback cannot be made: {_class_name(failure)}"


def _class_name(error: BaseException) -> str:
    # A metaclass may have a ``__name__`` of its own.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name
