"""How many tokens a tokenizer makes of text, and whether the text comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.api import DataError
from lmflow_vocabulary.texts import read_texts

_BATCH = 1000


@dataclass(frozen=True)
class Measured:
    """What was counted.

    Attributes:
        name: file, with the field of its rows where one was named.
        texts: how many.
        characters: code points.
        words: runs without white space.
        bytes: in UTF-8.
        tokens: control tokens around a text left out.
        unchanged: texts that come back from their tokens as they were.
    """

    name: str
    texts: int
    characters: int
    words: int
    bytes: int
    tokens: int
    unchanged: int

    @property
    def per_character(self) -> float:
        """Tokens of a character."""
        return self.tokens / self.characters

    @property
    def per_word(self) -> float:
        """Tokens of a word."""
        return self.tokens / max(self.words, 1)

    @property
    def per_byte(self) -> float:
        """Tokens of a byte."""
        return self.tokens / self.bytes


def measure_files(tokenizer: Any, files: Sequence[Path], fields: Sequence[str]) -> list[Measured]:
    """Measure each file, and each field of files of JSON lines.

    Args:
        tokenizer: of transformers, with a fast backend.
        files: what to measure.
        fields: of JSON lines.

    Raises:
        DataError: a file cannot be read or holds no text.
    """
    found = []
    for file in files:
        several = len(fields) > 1 and file.suffix in (".jsonl", ".ndjson")
        for field in fields if several else fields[:1]:
            name = f"{file.name}:{field}" if several else file.name
            found.append(measure(tokenizer.backend_tokenizer, name, list(read_texts(file, field))))
    return found


def measure(backend: Any, name: str, texts: Iterable[str]) -> Measured:
    """Measure some texts.

    Raises:
        DataError: there are none.
    """
    listed = list(texts)
    if not listed:
        raise DataError("there is no text in it", file=name)
    tokens = unchanged = 0
    for start in range(0, len(listed), _BATCH):
        batch = listed[start : start + _BATCH]
        encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
        decoded = backend.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
        tokens += sum(len(encoding.ids) for encoding in encodings)
        unchanged += sum(text == back for text, back in zip(batch, decoded, strict=True))
    return Measured(
        name, len(listed), sum(map(len, listed)), sum(len(text.split()) for text in listed),
        sum(len(text.encode("utf-8", "surrogatepass")) for text in listed), tokens, unchanged,
    )  # fmt: skip
