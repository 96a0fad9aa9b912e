"""The one family of errors: each says what is wrong, where, and how to mend it.

The exit status belongs to the error: 2 when the request was wrong, 1 when the work failed.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path

# torch on a processor and on a GPU, oneDNN and C++, in this order.
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory", "could not create a primitive", "std::bad_alloc")


class LmflowError(Exception):
    """Work that failed. The message is meant for the user and needs no traceback."""

    exit_status = 1


def printable(text: str, most: int = 2000) -> str:
    """Return a text of a file or a library as a part of a message: no control codes, and not longer than ``most``."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}…"


class RequestError(LmflowError):
    """A request that cannot be carried out as it was made: a flag, a file or a name is wrong."""

    exit_status = 2


class OptionError(RequestError):
    """An option is unknown, has the wrong type, or is out of its range."""


class DataError(RequestError):
    """Data that cannot be used; tells the file and, where there is one, the row (counted from 1)."""

    def __init__(self, problem: str, *, file: Path | str | None = None, row: int | None = None) -> None:
        self.problem = printable(problem)
        self.file = file
        self.row = row
        super().__init__(self._message())

    def _message(self) -> str:
        if self.file is None:
            return self.problem
        where = f"{self.file}, row {self.row}" if self.row is not None else f"{self.file}"
        return f"{where}: {self.problem}"


class ModelError(RequestError):
    """A model reference that names nothing, or a model that cannot do what is asked of it."""


class PromptTooLongError(RequestError):
    """A prompt that leaves no room in the context for a single token of an answer.

    Attributes:
        prompt_tokens: the length of the prompt.
        context: how many tokens prompt and answer may have together.
    """

    def __init__(self, prompt_tokens: int, context: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.context = context
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and the context of the model holds {context}, so that no token of "
            "an answer fits behind it: shorten the prompt"
        )


class OutputError(RequestError):
    """A place to write to that is taken or cannot be written."""


class PluginError(RequestError):
    """A plugin that breaks its contract, or a request that no healthy plugin can serve."""


class SpecError(PluginError):
    """A spec that a plugin declared wrongly."""


class UnknownNameError(PluginError):
    """A name that no healthy plugin provides."""


class NameConflictError(PluginError):
    """A name that several plugins provide, used without saying whose is meant."""


class PluginLoadError(PluginError):
    """A healthy plugin whose target cannot be imported or does not fit its contract."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; below Python, libraries say so in words alone."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    return said or isinstance(error, MemoryError)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """Return a value for a message, shortened: a run file may hold one of any size."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 80
    return shortened.repr(value)
