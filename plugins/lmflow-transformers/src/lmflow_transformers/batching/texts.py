"""What a model keeps of one text while it reads it, and the layouts in which it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from lmflow_transformers.batching.layers import LayerCache, Seen


class TextCache(Protocol):
    """Keys and values of one text.

    Attributes:
        seen: how many tokens of it were read.
        dropped: how many of those the last one did not see.
    """

    seen: int
    dropped: int

    def room(self) -> int:
        """Return how many tokens the next pass may read, at least one."""

    def begin(self, count: int) -> Sequence[int]:
        """Begin a pass over the next ``count`` tokens, which :meth:`room` allows; return their positions."""

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> Seen:
        """Add what a layer makes of the tokens of the pass; return what these attend to there.

        Args:
            layer: its number.
            keys: (1, heads, count, head size).
            values: likewise.
            window: tokens that a token sees in this layer, as the model tells; None is all.
        """

    def end(self, count: int) -> None:
        """End the pass; keep the first ``count`` of its tokens and forget the others."""

    def holds(self, length: int) -> bool:
        """Whether another text can go on from the first ``length`` tokens."""

    def fork(self, length: int, capacity: int) -> TextCache:
        """Return a copy that has seen the first ``length`` tokens, for a text of ``capacity`` tokens at most."""

    def shrink(self) -> None:
        """Give back the memory that was set aside for more tokens."""


class CacheLayout(Protocol):
    """How texts are kept. Texts of equal layouts can go on from one another."""

    def open(self, capacity: int) -> TextCache:
        """Return a cache for a text of ``capacity`` tokens at most."""

    def tokens(self, length: int) -> int:
        """Return for how many tokens there is memory in the cache of a text with ``length`` tokens, at most."""


@dataclass(frozen=True)
class WholeText:
    """Every layer keeps all it sees: the whole text, or its window of it. Satisfies ``CacheLayout``."""

    def open(self, capacity: int) -> WholeTextCache:
        """Return a cache for a text of ``capacity`` tokens at most."""
        return WholeTextCache(capacity)

    def tokens(self, length: int) -> int:
        """Return for how many tokens there is memory at most."""
        return length


class WholeTextCache:
    """The cache of a text that is read as plain decoding reads it. Satisfies ``TextCache``."""

    dropped = 0

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._layers: dict[int, LayerCache] = {}
        self.seen = 0

    def room(self) -> int:
        """Return how many tokens may follow."""
        return max(1, self._capacity - self.seen)

    def begin(self, count: int) -> Sequence[int]:
        """Return the positions of the next tokens."""
        return range(self.seen, self.seen + count)

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> Seen:
        """Add what a layer makes of the tokens of the pass; return what these attend to there."""
        if layer not in self._layers:
            self._layers[layer] = LayerCache(self._capacity, window)
        return self._layers[layer].extend(keys, values)

    def end(self, count: int) -> None:
        """Keep the first ``count`` tokens of the pass."""
        self.seen += count
        for layer in self._layers.values():
            layer.crop(self.seen)

    def holds(self, length: int) -> bool:
        """Whether another text can go on from the first ``length`` tokens."""
        return length <= self.seen and all(layer.holds(length) for layer in self._layers.values())

    def fork(self, length: int, capacity: int) -> WholeTextCache:
        """Return a copy that has seen the first ``length`` tokens."""
        copy = WholeTextCache(capacity)
        copy._layers = {number: layer.fork(length, capacity) for number, layer in self._layers.items()}
        copy.seen = length
        return copy

    def shrink(self) -> None:
        """Give back the memory that was set aside for more tokens."""
        for layer in self._layers.values():
            layer.shrink()

    @property
    def nbytes(self) -> int:
        """Memory that is set aside."""
        return sum(layer.nbytes for layer in self._layers.values())
