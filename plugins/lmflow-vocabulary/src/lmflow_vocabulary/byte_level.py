"""Extending a byte-level BPE tokenizer: merges of a new script, behind all that there were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, TypeVar

from lmflow_core.api import RequestError
from lmflow_vocabulary.backends import (
    Steps,
    from_letters,
    next_id,
    pin_added_tokens,
    to_letters,
    tokenizer_of,
)
from lmflow_vocabulary.merging import Learned, MergeLearner
from lmflow_vocabulary.scripts import LearnedCharacters

T = TypeVar("T")
_LONGEST = 16
_BATCH = 4096


@dataclass(frozen=True)
class Extended:
    """An extended tokenizer.

    Attributes:
        steps: its JSON.
        pieces: of each new token by id, from the first: the old tokens that it is made of.
        merges_before: how many merges there were before.
    """

    steps: Steps
    pieces: Mapping[int, Sequence[int]]
    merges_before: int | None


def extend_byte_level(steps: Steps, texts: Iterable[str], size: int, characters: LearnedCharacters) -> Extended:
    """Return the tokenizer with new tokens of a script.

    A text that holds none of the characters keeps its ids, whatever was learned: every new token is made of bytes that
    only such a text has, and merges of others are as they were, in their order.

    Args:
        steps: the JSON of the tokenizer.
        texts: what to learn from.
        size: new tokens at most.
        characters: of the script.

    Raises:
        RequestError: nothing can be learned from the texts.
    """
    old: dict[str, int] = steps["model"]["vocab"]
    pieces = {number: piece for text, number in old.items() if (piece := from_letters(text)) is not None}
    words = _encoded(steps, _count_words(steps, texts, characters))
    learner = MergeLearner(words, pieces, next_id(steps, old))
    learned = learner.learn(size, lambda piece: _is_short(piece) and characters.mark_for_sure(piece))
    if not learned.pieces:
        raise RequestError(
            "no new token is found in --files: no two tokens of it stand beside each other twice where a character of "
            f"{', '.join(characters.scripts)} is. Give more text, or a language the model does not know"
        )
    merges_before = len(steps["model"]["merges"])
    _append(steps, learned, pieces)
    return Extended(steps, old_pieces(learned, pieces), merges_before)


def _is_short(piece: bytes) -> bool:
    return len(piece) <= 4 * _LONGEST and len(piece.decode("utf-8", "replace")) <= _LONGEST


def _count_words(steps: Steps, texts: Iterable[str], characters: LearnedCharacters) -> Counter[str]:
    """Return what the tokenizer merges within, as letters for bytes, where a character of the script stands."""
    backend = tokenizer_of(steps)
    words: Counter[str] = Counter()
    for text in texts:
        if not characters.in_text(text):
            continue
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        for word, (start, end) in backend.pre_tokenizer.pre_tokenize_str(normal):
            if characters.in_text(normal[start:end]):
                words[word] += 1
    return words


def _encoded(steps: Steps, words: Mapping[str, int]) -> list[tuple[list[int], int]]:
    """Return the tokens of each word: what the merges make of it that there are."""
    plain: Any = tokenizer_of(
        steps
        | {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None}
        | {"truncation": None, "padding": None}
    )
    encoded: list[tuple[list[int], int]] = []
    for batch in batched(words.items(), _BATCH):
        found = plain.encode_batch_fast([word for word, _ in batch], add_special_tokens=False)
        encoded += [(encoding.ids, count) for encoding, (_, count) in zip(found, batch, strict=True)]
    return encoded


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in lists of a size; the last may be shorter."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _append(steps: Steps, learned: Learned, pieces: Mapping[int, bytes]) -> None:
    model = steps["model"]
    pin_added_tokens(steps)
    text_of = {number: to_letters(piece) for number, piece in {**pieces, **learned.pieces}.items()}
    for number in learned.pieces:
        model["vocab"][text_of[number]] = number
    model["merges"] += [[text_of[merge.left], text_of[merge.right]] for merge in learned.merges]


def old_pieces(
    learned: Learned, old: Collection[int], known: Mapping[int, Sequence[int]] = MappingProxyType({})
) -> dict[int, list[int]]:
    """Return the old tokens that each new one is made of, by the first merge that makes it.

    ``known`` tells those of new tokens that no merge makes.
    """
    made = {number: list(pieces) for number, pieces in known.items()}
    for merge in learned.merges:
        if merge.token not in made:
            sides = [[side] if side in old else made[side] for side in (merge.left, merge.right)]
            made[merge.token] = sides[0] + sides[1]
    return made
