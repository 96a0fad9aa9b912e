"""The labelled tokens of an example as an answer: where its prompt ends, what it says, and how many bytes it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from lmflow_core.api import IGNORE, EncodedSequence, Tokenizer


@dataclass(frozen=True)
class Asked:
    """A prompt and the answer that is right: ids of the prompt, and the answer's text without control tokens."""

    prompt: Sequence[int]
    answer: str


def last_answer(sequence: EncodedSequence, tokenizer: Tokenizer) -> Asked | None:
    """Return the last answer of an example, with all that stands before it for its prompt.

    None where nothing but control tokens stands before it, as in a text.
    """
    control = set(tokenizer.control_tokens.values())
    *_, (start, end) = _runs([label != IGNORE for label in sequence.labels])
    prompt = list(sequence.input_ids[:start])
    if control.issuperset(prompt):
        return None
    return Asked(prompt, plain_text(sequence.input_ids[start:end], tokenizer))


def answer_bytes(sequence: EncodedSequence, tokenizer: Tokenizer) -> int:
    """Return the bytes (UTF-8) of the text of the tokens that are scored; control tokens are no text.

    The first token of a sequence follows from nothing, and is not scored.
    """
    control = set(tokenizer.control_tokens.values())
    scored = [place > 0 and label != IGNORE and label not in control for place, label in enumerate(sequence.labels)]
    return sum(
        _bytes(sequence.input_ids[:end], tokenizer) - _bytes(sequence.input_ids[:start], tokenizer)
        for start, end in _runs(scored)
    )


def plain_text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the text of ids without control tokens."""
    control = set(tokenizer.control_tokens.values())
    return tokenizer.decode([token for token in ids if token not in control])


def _bytes(ids: Sequence[int], tokenizer: Tokenizer) -> int:
    """Return the bytes of ids, from the first on: decoded alone, an answer may lose the space before it."""
    return len(tokenizer.decode(list(ids)).encode())


def _runs(marked: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield where each run of marked places begins and ends."""
    place = 0
    for value, group in groupby(marked):
        length = sum(1 for _ in group)
        if value:
            yield place, place + length
        place += length
