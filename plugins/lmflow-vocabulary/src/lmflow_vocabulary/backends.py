"""The JSON of a fast tokenizer, taken apart and put together again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from lmflow_core.api import ModelError

Steps: TypeAlias = dict[str, Any]

_VISIBLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _byte_letters() -> dict[int, str]:
    """Return the letter by which byte-level tokenizers write each byte."""
    hidden = [byte for byte in range(0x100) if byte not in _VISIBLE]
    return {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(0x100 + n) for n, byte in enumerate(hidden)}


_LETTERS = _byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


def to_letters(piece: bytes) -> str:
    """Return bytes as a byte-level tokenizer writes them."""
    return "".join(_LETTERS[byte] for byte in piece)


def from_letters(text: str) -> bytes | None:
    """Return the bytes of a token; None of one that is not written in letters for bytes."""
    found = [_BYTES.get(letter) for letter in text]
    return bytes(byte for byte in found if byte is not None) if None not in found else None


def read_steps(backend: Any) -> Steps:
    """Return the JSON of a backend; its merges are pairs."""
    steps: Steps = json.loads(backend.to_str())
    model = steps["model"]
    if "merges" in model:
        model["merges"] = [m.split(" ", 1) if isinstance(m, str) else list(m) for m in model["merges"]]
    return steps


def is_byte_level(steps: Steps) -> bool:
    """Whether a tokenizer writes every byte of a text as a letter, and merges those."""
    levels = [part for part in _parts(steps["pre_tokenizer"]) if part["type"] == "ByteLevel"]
    return steps["model"]["type"] == "BPE" and bool(levels)


def _parts(step: Steps | None) -> Iterator[Steps]:
    if step is None:
        return
    yield step
    for part in step.get("pretokenizers", ()):
        yield from _parts(part)


def next_id(steps: Steps, vocabulary: Mapping[str, int]) -> int:
    """Return the first id that no token has."""
    added: list[int] = [token["id"] for token in steps["added_tokens"]]
    return 1 + max(*vocabulary.values(), *added, -1)


def pin_added_tokens(steps: Steps) -> None:
    """Put tokens that were added into the vocabulary.

    One that is not in it is numbered by the size of the vocabulary whenever the tokenizer is read, and would move.
    """
    vocabulary: dict[str, int] = steps["model"]["vocab"]
    for token in steps["added_tokens"]:
        vocabulary.setdefault(token["content"], token["id"])


def tokenizer_of(steps: Steps) -> Any:
    """Return the backend of some steps.

    Raises:
        ModelError: they make none.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(steps))
    except Exception as error:  # the library raises no narrower kind
        raise ModelError(f"the tokenizer cannot be made: {error}") from error
