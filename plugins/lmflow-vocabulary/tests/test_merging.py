"""Merges are those of byte pair encoding done in the plainest way, and old ones stay before new ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from lmflow_vocabulary.merging import MergeLearner

Word = tuple[int, ...]


def _plain(
    words: dict[Word, int], pieces: dict[int, bytes], first: int, size: int, allowed: Callable[[bytes], bool]
) -> tuple[list[tuple[int, int, int]], dict[Word, int]]:
    """Count all pairs anew for each merge."""
    pieces = dict(pieces)
    merges: list[tuple[int, int, int]] = []
    while (best := _best(words, pieces, first, allowed)) is not None:
        pair, piece = best
        known = {each: number for number, each in pieces.items()}
        number = known.get(piece, first + sum(old >= first for old in pieces))
        if number not in pieces:
            if number == first + size:
                break
            pieces[number] = piece
        if (*pair, number) not in merges:
            merges.append((*pair, number))
        merged: Counter[Word] = Counter()
        for word, count in words.items():
            merged[_merge(word, pair, number)] += count
        words = merged
    return merges, words


def _best(
    words: dict[Word, int], pieces: dict[int, bytes], first: int, allowed: Callable[[bytes], bool]
) -> tuple[tuple[int, int], bytes] | None:
    """Return the most frequent pair that may be merged, of equals the lowest, and the piece it makes."""
    counts: Counter[tuple[int, int]] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    known = {piece: number for number, piece in pieces.items()}
    fitting = []
    for pair, count in counts.items():
        piece = pieces[pair[0]] + pieces[pair[1]]
        if count >= 2 and allowed(piece) and known.get(piece, first) >= first:
            fitting.append((-count, pair, piece))
    return min(fitting)[1:] if fitting else None


def _merge(word: Word, pair: tuple[int, int], token: int) -> Word:
    result: list[int] = []
    place = 0
    while place < len(word):
        if word[place : place + 2] == pair:
            result.append(token)
            place += 2
        else:
            result.append(word[place])
            place += 1
    return tuple(result)


@pytest.mark.parametrize("seed", range(12))
def test_merges_are_those_of_the_plainest_way(seed: int) -> None:
    rng = random.Random(seed)
    letters = 3 if seed % 2 else 6
    pieces = {n: bytes([97 + n]) for n in range(letters)} | {letters: b"ab"}
    words: dict[Word, int] = {}
    for _ in range(40):
        word = tuple(rng.choices(range(letters + 1), k=rng.randint(1, 12)))
        words[word] = words.get(word, 0) + rng.randint(1, 5)
    listed: Sequence[tuple[Word, int]] = list(words.items())
    learned = MergeLearner(listed, pieces, 50).learn(30, lambda piece: not piece.startswith(b"c"))
    found = [(merge.left, merge.right, merge.token) for merge in learned.merges]
    merges, cut = _plain(words, pieces, 50, 30, lambda piece: not piece.startswith(b"c"))
    assert found == merges
    counts: Counter[int] = Counter()
    for word, count in cut.items():
        for token in word:
            counts[token] += count
    alone = Counter({word[0]: count for word, count in words.items() if len(word) == 1})
    assert learned.counts == dict(counts - alone)


def test_size_bounds_new_tokens() -> None:
    words = [((0, 1, 2, 3), 5)]
    pieces = {n: bytes([97 + n]) for n in range(4)}
    learned = MergeLearner(words, pieces, 4).learn(2, lambda piece: True)
    assert len(learned.pieces) == 2
    assert min(learned.pieces) == 4


def test_a_pair_that_occurs_once_is_no_token() -> None:
    learned = MergeLearner([((0, 1), 1)], {0: b"a", 1: b"b"}, 2).learn(5, lambda piece: True)
    assert learned.merges == ()
