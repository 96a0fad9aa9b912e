"""Byte pair encoding (Sennrich et al., arXiv:1508.07909) that goes on from where a vocabulary stands.

Words come as a vocabulary cuts them now. The pair that occurs most often becomes a token, again and again, so that the
merges learned follow all that there were. All words lie in one row of symbols, linked to their neighbours; a merge
visits its own occurrences only.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
_SHIFT = 32
_LEAST_COUNT = 2


@dataclass(frozen=True)
class Merge:
    """Two tokens, by id, and the token that they become."""

    left: int
    right: int
    token: int


@dataclass(frozen=True)
class Learned:
    """What was learned.

    Attributes:
        merges: in the order in which they are applied, behind all that there were.
        pieces: the new tokens by id, as text in UTF-8.
        counts: how often each token, old or new, stands in the text in the end.
    """

    merges: tuple[Merge, ...]
    pieces: Mapping[int, bytes]
    counts: Mapping[int, int]


class MergeLearner:
    """Learns merges of some words.

    Args:
        words: tokens of each word, and how often it occurs.
        pieces: the text of each token there is, by id, in UTF-8.
        first: the id of the first new token.
    """

    def __init__(self, words: Iterable[tuple[Sequence[int], int]], pieces: Mapping[int, bytes], first: int) -> None:
        self._pieces = dict(pieces)
        self._numbers = {piece: number for number, piece in pieces.items()}
        self._first = first
        self._lay_out(words)
        self._count_pairs()

    def learn(self, size: int, allowed: Callable[[bytes], bool]) -> Learned:
        """Learn until there are as many new tokens as asked for, or no allowed pair occurs twice.

        Args:
            size: how many new tokens there may be.
            allowed: whether a piece may become a token.
        """
        merges: dict[tuple[int, int], Merge] = {}
        new: dict[int, bytes] = {}
        while self._heap:
            key = self._most_frequent()
            if key is None:
                break
            left, right = key >> _SHIFT, key & ((1 << _SHIFT) - 1)
            piece = self._pieces[left] + self._pieces[right]
            number = self._numbers.get(piece)
            # A second way to an old token would set off old merges behind new ones.
            if (number is not None and number < self._first) or not allowed(piece):
                del self._counts[key]
                continue
            if number is None:
                if len(new) == size:
                    break
                number = self._first + len(new)
                new[number] = self._pieces[number] = piece
                self._numbers[piece] = number
            merges.setdefault((left, right), Merge(left, right, number))
            self._apply(key, left, right, number)
        return Learned(tuple(merges.values()), new, self._final_counts())

    def _lay_out(self, words: Iterable[tuple[Sequence[int], int]]) -> None:
        listed = [(tokens, count) for tokens, count in words if len(tokens) > 1]
        lengths = np.array([len(tokens) for tokens, _ in listed], np.int64)
        self._symbols: Numbers = np.fromiter((t for tokens, _ in listed for t in tokens), np.int64, int(lengths.sum()))
        self._weights: Numbers = np.repeat(np.array([count for _, count in listed], np.int64), lengths)
        total = len(self._symbols)
        self._next: Numbers = np.arange(1, total + 1)
        self._previous: Numbers = np.arange(-1, total - 1)
        ends = np.cumsum(lengths)
        self._next[ends - 1] = -1
        self._previous[ends - lengths] = -1

    def _count_pairs(self) -> None:
        self._counts: dict[int, int] = {}
        self._places: dict[int, list[Numbers]] = {}
        self._heap: list[tuple[int, int]] = []
        self._add(np.flatnonzero(self._next >= 0))

    def _add(self, places: Numbers) -> None:
        """Count the pairs that begin at some places, and remember where they are."""
        if not len(places):
            return
        keys = self._keys(places)
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        sums = np.add.reduceat(self._weights[places], starts)
        for key, count, group in zip(keys[starts].tolist(), sums.tolist(), np.split(places, starts[1:]), strict=True):
            self._counts[key] = self._counts.get(key, 0) + count
            self._places.setdefault(key, []).append(group)
            heapq.heappush(self._heap, (-self._counts[key], key))

    def _subtract(self, places: Numbers) -> None:
        keys, inverse = np.unique(self._keys(places), return_inverse=True)
        sums = np.bincount(inverse, self._weights[places], len(keys)).astype(np.int64)
        for key, count in zip(keys.tolist(), sums.tolist(), strict=True):
            if key in self._counts:
                self._counts[key] -= count

    def _keys(self, places: Numbers) -> Numbers:
        return self._symbols[places] << _SHIFT | self._symbols[self._next[places]]

    def _most_frequent(self) -> int | None:
        """Take the pair with the highest count; of equals, that of the lowest ids."""
        while self._heap:
            negative, key = heapq.heappop(self._heap)
            count = self._counts.get(key, 0)
            if count < _LEAST_COUNT:
                continue
            if count == -negative:
                return key
            heapq.heappush(self._heap, (-count, key))
        return None

    def _apply(self, key: int, left: int, right: int, token: int) -> None:
        first = self._occurrences(key, left, right)
        second = self._next[first]
        before, behind = self._previous[first], self._next[second]
        # The pair between two merges that touch is both behind the one and before the other.
        touches = np.isin(behind, first)
        self._subtract(np.concatenate((before[before >= 0], second[(behind >= 0) & ~touches])))
        self._counts.pop(key, None)
        self._symbols[first] = token
        self._symbols[second] = -1
        self._next[first] = behind
        self._previous[behind[behind >= 0]] = first[behind >= 0]
        before, behind = self._previous[first], self._next[first]
        self._add(np.unique(np.concatenate((before[before >= 0], first[behind >= 0]))))

    def _occurrences(self, key: int, left: int, right: int) -> Numbers:
        places = np.unique(np.concatenate(self._places.pop(key)))
        places = places[(self._symbols[places] == left) & (self._next[places] >= 0)]
        places = places[self._symbols[self._next[places]] == right]
        return places if left != right else _without_overlaps(places, self._previous)

    def _final_counts(self) -> dict[int, int]:
        alive = self._symbols >= 0
        sums = np.bincount(self._symbols[alive], self._weights[alive])
        return {int(number): int(sums[number]) for number in np.flatnonzero(sums)}


def _without_overlaps(places: Numbers, previous: Numbers) -> Numbers:
    """Return every second place of each run of one symbol, from the left, as merges are applied."""
    follows = np.concatenate(([False], previous[places[1:]] == places[:-1]))
    starts = np.flatnonzero(~follows)
    lengths = np.diff(np.append(starts, len(places)))
    within = np.arange(len(places)) - np.repeat(starts, lengths)
    alternate: Numbers = places[within % 2 == 0]
    return alternate
