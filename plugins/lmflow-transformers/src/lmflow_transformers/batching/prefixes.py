"""Texts that others may go on from: what two prompts begin with is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmflow_transformers.batching.texts import CacheLayout, TextCache

# A few tokens are read again sooner than they are copied.
SHORTEST = 8
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prefix:
    """The first ``length`` tokens of a text that has read them, or is about to."""

    cache: TextCache
    length: int


def in_common(ids: Ids, other: Ids) -> int:
    """Return how many tokens two texts begin with alike."""
    length = min(len(ids), len(other))
    differs = np.flatnonzero(ids[:length] != other[:length])
    return int(differs[0]) if len(differs) else length


class FinishedTexts:
    """The caches of the last texts that ended, the latest last.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[CacheLayout, Ids, TextCache]] = []

    @property
    def tokens(self) -> int:
        """For how many tokens there is memory in them."""
        return sum(layout.tokens(cache.seen) for layout, _, cache in self._kept)

    def keep(self, layout: CacheLayout, ids: Sequence[int], cache: TextCache) -> None:
        """Keep a text that ended, in the place of those it goes on from."""
        seen = np.array(ids[: cache.seen], dtype=np.int64)
        if len(seen) < SHORTEST:
            return
        cache.shrink()
        self._kept = [one for one in self._kept if one[0] != layout or in_common(one[1], seen) < len(one[1])]
        self._kept.append((layout, seen, cache))
        del self._kept[: -self._most]

    def longest(self, layout: CacheLayout, ids: Ids) -> Prefix | None:
        """Return the longest beginning that a text shares with one of them, without its last token; None for none."""
        best = longest_prefix(ids, ((kept, cache) for has, kept, cache in self._kept if has == layout))
        if best is not None:
            place = next(at for at, one in enumerate(self._kept) if one[2] is best.cache)
            self._kept.append(self._kept.pop(place))
        return best

    def forget_oldest(self) -> bool:
        """Forget the text that was of no use for the longest time; False when there is none."""
        return bool(self._kept) and self._kept.pop(0) is not None


def longest_prefix(ids: Ids, texts: Iterable[tuple[Ids, TextCache]]) -> Prefix | None:
    """Return the longest beginning of a text, without its last token, that one of others has read."""
    best: Prefix | None = None
    for other, cache in texts:
        length = min(in_common(ids[:-1], other), cache.seen)
        if length >= SHORTEST and (best is None or length > best.length) and cache.holds(length):
            best = Prefix(cache, length)
    return best
