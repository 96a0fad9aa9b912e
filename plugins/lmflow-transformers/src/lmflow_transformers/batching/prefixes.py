"""Texts that others may go on from: what two prompts begin with is read once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmflow_core.api import SHORTEST_BEGINNING, Media, common_beginning
from lmflow_transformers.batching.texts import CacheLayout, TextCache

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prefix:
    """The first ``length`` tokens of a text that has read them, or is about to."""

    cache: TextCache
    length: int

    def without_part_of(self, media: Sequence[Media]) -> Prefix | None:
        """Return a beginning that holds all images of a prompt or none, this one or a shorter; None for none."""
        if not media or self.length >= media[-1].start + media[-1].tokens or self.length <= media[0].start:
            return self
        shorter = media[0].start
        return Prefix(self.cache, shorter) if shorter >= SHORTEST_BEGINNING and self.cache.holds(shorter) else None


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

    def keep(self, layout: CacheLayout, ids: Ids, cache: TextCache) -> None:
        """Keep a text that ended, in the place of those it goes on from."""
        seen = ids[: cache.seen].copy()
        if len(seen) < SHORTEST_BEGINNING:
            return
        cache.shrink()
        self._kept = [one for one in self._kept if one[0] != layout or common_beginning(one[1], seen) < len(one[1])]
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
        length = min(common_beginning(ids[:-1], other), cache.seen)
        if length >= SHORTEST_BEGINNING and (best is None or length > best.length) and cache.holds(length):
            best = Prefix(cache, length)
    return best
