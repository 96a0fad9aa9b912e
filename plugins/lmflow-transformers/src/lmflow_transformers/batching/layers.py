"""Keys and values that one layer keeps of one text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# A windowed layer keeps some tokens more than are seen, so that other texts can still go on from a few tokens back.
_SLACK = 64


@dataclass(frozen=True)
class Seen:
    """What new tokens of a text attend to.

    Attributes:
        keys: (1, heads, seen, head size); the last are those of the new tokens.
        values: likewise.
        mask: (1, 1, new, seen), bool, true where a new token sees a key; None where each sees all up to itself.
        window: how many of the last keys a token sees, itself included; None is all.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None = None
    window: int | None = None


class LayerCache:
    """Keys and values of a layer that sees the whole text, or a window of its last tokens.

    Args:
        capacity: most tokens that the text will have.
        window: tokens that a token sees, itself included; None is all.
    """

    def __init__(self, capacity: int, window: int | None) -> None:
        self.window = window
        self._capacity = capacity
        self._first = 0
        self._end = 0
        self._keys = self._values = torch.empty(0)

    @property
    def nbytes(self) -> int:
        """Memory that is set aside."""
        return self._keys.nbytes + self._values.nbytes

    def extend(self, keys: torch.Tensor, values: torch.Tensor) -> Seen:
        """Add those of new tokens, (1, heads, new, head size); return what these attend to."""
        new = keys.shape[2]
        self._make_room(keys, values)
        at = self._end - self._first
        self._keys[:, :, at : at + new] = keys
        self._values[:, :, at : at + new] = values
        self._end += new
        first = 0 if self.window is None else max(0, at + 1 - self.window)
        shown = slice(first, at + new)
        window = None if new == 1 else self.window
        return Seen(self._keys[:, :, shown], self._values[:, :, shown], window=window)

    def _make_room(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        held, new = self._end - self._first, keys.shape[2]
        if held and held + new <= self._keys.shape[2]:
            return
        kept = held if self.window is None else min(held, self.window - 1 + _SLACK)
        room = max(self._capacity, kept + new)
        if self.window is not None:
            room = min(room, max(2 * (self.window + _SLACK), kept + new))
        self._keys = _moved(self._keys, keys, held - kept, kept, room)
        self._values = _moved(self._values, values, held - kept, kept, room)
        self._first = self._end - kept

    def crop(self, length: int) -> None:
        """Forget what is behind the first ``length`` tokens."""
        self._end = length

    def holds(self, length: int) -> bool:
        """Whether everything is there that a token behind the first ``length`` ones sees."""
        first = 0 if self.window is None else max(0, length + 1 - self.window)
        return self._first <= first and length <= self._end

    def fork(self, length: int, capacity: int) -> LayerCache:
        """Return a copy that has seen the first ``length`` tokens."""
        copy = LayerCache(capacity, self.window)
        first = self._first if self.window is None else max(self._first, length + 1 - self.window - _SLACK)
        part = slice(first - self._first, length - self._first)
        copy._first = copy._end = first
        copy.extend(self._keys[:, :, part], self._values[:, :, part])
        return copy

    def shrink(self) -> None:
        """Give back the memory that was set aside for more tokens."""
        held = self._end - self._first
        if self._keys.shape[2] > held:
            self._keys = self._keys[:, :, :held].clone()
            self._values = self._values[:, :, :held].clone()


def _moved(old: torch.Tensor, like: torch.Tensor, start: int, count: int, room: int) -> torch.Tensor:
    """Return a buffer for ``room`` tokens that begins with ``count`` tokens of an old one."""
    buffer = like.new_empty((*like.shape[:2], room, like.shape[3]))
    if count:
        buffer[:, :, :count] = old[:, :, start : start + count]
    return buffer
