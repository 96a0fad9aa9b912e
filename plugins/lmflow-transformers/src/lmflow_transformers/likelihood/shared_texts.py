"""Texts that begin alike, laid out for one pass: a token that several have in common is read once.

So the examples of a few-shot prompt are read once for all questions, and a question once for all its choices. Unlike
the sequences of a loss, a position may have several targets here: what follows it in each of the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from lmflow_transformers.batches import BEGINNINGS
from lmflow_transformers.beginnings import SHORTEST

# Tokens that a pass reads; more where texts have a long beginning in common, which each pass reads anew.
_PASS_TOKENS, _LONGEST_PASS, _TIMES_SHARED = 2048, 16384, 8


@dataclass(frozen=True)
class Stretch:
    """Tokens that lie together in the row of a pass: where they start, and how many they are."""

    place: int
    tokens: int


@dataclass
class SharedTexts:
    """The texts of one pass.

    Attributes:
        ids: the row that goes through the network.
        own: for each sequence of the row its length and the stretches, of those before it, that it goes on from.
        texts: of each text the stretches that it is made of; their tokens are all of the text.
    """

    ids: list[int] = field(default_factory=list)
    own: list[tuple[int, tuple[Stretch, ...]]] = field(default_factory=list)
    texts: list[tuple[Stretch, ...]] = field(default_factory=list)

    def add(self, text: Sequence[int], shared: int) -> None:
        """Put a text behind the others; its first ``shared`` tokens are those of the text before it."""
        before = _first(self.texts[-1], shared) if shared else ()
        count = len(text) - shared
        stretches = before
        if count:
            stretches = _joined(before, Stretch(len(self.ids), count))
            self.own.append((count, before))
            self.ids += text[shared:]
        self.texts.append(stretches)

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return what a network is called with that keeps sequences isolated and lets them share beginnings."""
        starts = [sum(stretch.tokens for stretch in before) for _, before in self.own]
        counts = [count for count, _ in self.own]
        positions = [torch.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        inputs = {
            "input_ids": torch.tensor([self.ids]),
            "position_ids": torch.cat(positions)[None],
            "cu_seq_lens_q": torch.tensor([0, *accumulate(counts)], dtype=torch.int32),
        }
        if any(starts):
            most = max(len(before) for _, before in self.own)
            inputs[BEGINNINGS] = torch.tensor([_padded(before, most) for _, before in self.own])
        return inputs

    def rows(self, text: int, positions: Iterable[int]) -> Iterator[int]:
        """Yield where positions of a text, in rising order, lie in the row."""
        stretches = iter(self.texts[text])
        stretch, end = next(stretches), 0
        end += stretch.tokens
        for position in positions:
            while position >= end:
                stretch = next(stretches)
                end += stretch.tokens
            yield stretch.place + position - (end - stretch.tokens)


def passes(texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], SharedTexts]]:
    """Yield the passes that texts are read in, none of them empty: the numbers of the texts, and how they lie.

    Sorted, texts that begin alike stand together, the longer one before its own beginning.
    """
    order = sorted(range(len(texts)), key=lambda number: texts[number], reverse=True)
    numbers: list[int] = []
    laid = SharedTexts()
    for number in order:
        text = texts[number]
        shared = _worth_sharing(texts[numbers[-1]], text) if numbers else 0
        limit = min(max(_PASS_TOKENS, _TIMES_SHARED * shared), _LONGEST_PASS)
        if numbers and shared < len(text) and len(laid.ids) + len(text) - shared > limit:
            yield numbers, laid
            numbers, laid, shared = [], SharedTexts(), 0
        laid.add(text, shared)
        numbers.append(number)
    if numbers:
        yield numbers, laid


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    low, high = 0, most  # the first low are alike, the first high are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low


def _worth_sharing(before: Sequence[int], text: Sequence[int]) -> int:
    shared = in_common(before, text)
    return shared if shared >= SHORTEST or shared == len(text) else 0


def _first(stretches: Sequence[Stretch], tokens: int) -> tuple[Stretch, ...]:
    taken: list[Stretch] = []
    for stretch in stretches:
        if not tokens:
            break
        taken.append(Stretch(stretch.place, min(stretch.tokens, tokens)))
        tokens -= taken[-1].tokens
    return tuple(taken)


def _joined(before: tuple[Stretch, ...], own: Stretch) -> tuple[Stretch, ...]:
    if before and before[-1].place + before[-1].tokens == own.place:
        return (*before[:-1], Stretch(before[-1].place, before[-1].tokens + own.tokens))
    return (*before, own)


def _padded(before: Sequence[Stretch], most: int) -> list[int]:
    told = [number for stretch in before for number in (stretch.place, stretch.tokens)]
    return told + [0] * (2 * most - len(told))
