"""Texts that models are measured on, cut into windows of tokens."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

from lmflow_core.api import IGNORE, DataError, EncodedSequence, Tokenizer

_SHORTEST = 32


def read_text(file: Path | None) -> str:
    """Return the text of a file; without one, the page that comes with the plugin.

    Raises:
        DataError: the file cannot be read.
    """
    if file is None:
        return importlib.resources.files("lmflow_gguf").joinpath("page.txt").read_text(encoding="utf-8")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the text cannot be read: {error}", file=file) from error


def windows(tokenizer: Tokenizer, text: str, length: int, context: int | None) -> list[Sequence[int]]:
    """Return a text's tokens in windows of at most ``length``, and of the model's context.

    Raises:
        DataError: the text is too short to tell anything.
    """
    (ids,) = tokenizer.encode([text], [False])
    if len(ids) < _SHORTEST:
        raise DataError(f"the text has {len(ids)} tokens; {_SHORTEST} are the fewest that tell anything")
    size = min(length, context or length)
    parts = [ids[start : start + size] for start in range(0, len(ids), size)]
    return [part for part in parts if len(part) >= _SHORTEST]


def scored(window: Sequence[int]) -> EncodedSequence:
    """Return a window as an example in which every token but the first is predicted."""
    return EncodedSequence(window, [IGNORE, *window[1:]])
