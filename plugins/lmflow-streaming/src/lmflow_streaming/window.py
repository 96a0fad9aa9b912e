"""A text read through a window: attention sinks and the last tokens, in memory that does not grow with the text.

With N tokens in the window, M of them sinks, token t (counted from 0) sees itself, the N - M - 1 tokens before it and
the first M of the text; while t < N these are all tokens up to itself. Positions are places among what is seen: token t
is at place min(t, N - 1), the sinks are at places 0 to M - 1 and the others follow without a gap, so that no distance
exceeds N - 1 (Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453). What a
token's keys and values were when it was read they stay, as in the paper: they know of tokens now out of sight.

Only distances matter to rotary embeddings, so the last tokens keep the positions they were read at, and the sinks are
moved instead: each token of a pass brings a copy of their keys, rotated to where it sees them, and a mask that shows it
its own copy alone. The result does not depend on how a text is cut into passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lmflow_streaming.rotation import Rotation
from lmflow_transformers.api import CausalModel, Seen, for_decoding

_ROWS = 128


@dataclass(frozen=True)
class WindowLayout:
    """How much of a text is seen. Satisfies ``CacheLayout``.

    Attributes:
        size: N, tokens that a token sees, itself among them.
        sinks: M, how many of them are the first ones; fewer than ``size``.
        rotations: how each layer rotates its keys.
    """

    size: int
    sinks: int
    rotations: tuple[Rotation | None, ...] = field(compare=False)

    @property
    def rows(self) -> int:
        """Tokens of a pass behind the window: the copies of the sinks take no more room than the window does."""
        return max(1, min(_ROWS, self.size, self.size // max(1, self.sinks)))

    def open(self, capacity: int) -> WindowCache:
        """Return a cache that has read nothing."""
        return WindowCache(self)

    def tokens(self, length: int) -> int:
        """Return for how many tokens there is memory in the cache of a text with ``length`` tokens, at most."""
        behind = self.size + self.rows * (self.sinks + 1)
        return length if length <= self.size else behind


class Window:
    """A model that reads one text.

    Args:
        model: loaded; all its layers must see the whole text.
        layout: how much of the text is seen.
    """

    def __init__(self, model: CausalModel, layout: WindowLayout) -> None:
        self._model = model
        self._cache = layout.open(0)
        self._ids: list[int] = []
        self._whole = True

    @property
    def seen(self) -> int:
        """How many tokens were read."""
        return len(self._ids)

    def goes_on_with(self, ids: Sequence[int]) -> bool:
        """Whether a text is the one that was read, and more."""
        return self._whole and self.seen < len(ids) and list(ids[: self.seen]) == self._ids

    @property
    def dropped(self) -> int:
        """How many of the tokens read the last one did not see."""
        return self._cache.dropped

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Read the ids (1, new) behind those before; return the logits (1, vocabulary), float32, behind the last."""
        last = torch.empty(0)
        for logits in self.passes(ids):
            last = logits[-1:]
        return last

    def passes(self, ids: torch.Tensor, *, every: bool = False) -> Iterator[torch.Tensor]:
        """Read the ids (1, new) in passes of bounded size.

        Yields:
            The logits (rows, vocabulary), float32, behind ``every`` token of a pass, or behind its last.
        """
        while ids.shape[1]:
            part, ids = ids[:, : self._cache.room()], ids[:, self._cache.room() :]
            self._whole = False  # until every layer has kept the pass
            output = self._model.network(input_ids=part, logits_to_keep=0 if every else 1, **self._begun(part.shape[1]))
            self._ids += part[0].tolist()
            self._cache.end(part.shape[1])
            self._whole = True
            yield output.logits[0].float()

    def _begun(self, rows: int) -> dict[str, Any]:
        """Begin a pass; return what the network takes beside its ids."""
        arguments = for_decoding(self._model.network, self._cache)
        positions = torch.tensor([list(self._cache.begin(rows))], device=self._model.device)
        if self._cache.whole:
            return arguments
        mask = self._cache.mask
        if mask is not None:
            dtype = self._model.base.dtype
            hidden = torch.finfo(dtype).min
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, hidden)
        return {**arguments, "position_ids": positions, "attention_mask": mask}


def _mask(rows: int, sinks: int, recent: int) -> torch.Tensor:
    """Return which keys each row of a pass sees, (1, 1, rows, rows * sinks + recent + rows), bool.

    The keys are a copy of the sinks for each row, the ``recent`` tokens before the pass, and the pass itself.
    """
    row = torch.arange(rows)[:, None]
    key = torch.arange(recent + rows)[None]
    own = torch.eye(rows, dtype=torch.bool).repeat_interleave(sinks, dim=1)
    return torch.cat([own, (key >= row) & (key <= row + recent)], dim=1)[None, None]


class WindowCache(DynamicCache):
    """Keys and values of the sinks and of the last tokens, layer by layer. Satisfies ``TextCache``.

    Attributes:
        seen: how many tokens were read.
        whole: whether the pass that was begun sees the whole text.
        mask: (1, 1, rows, keys), bool: which keys each row of that pass sees; None where each sees all up to itself.
    """

    def __init__(self, layout: WindowLayout) -> None:
        super().__init__()
        recent = layout.size - layout.sinks - 1
        self.layers = [_WindowLayer(layout.sinks, recent, rotation) for rotation in layout.rotations]
        self._layout = layout
        self._next = layout.size
        self.seen = 0
        self.whole = True
        self.mask: torch.Tensor | None = None

    @property
    def dropped(self) -> int:
        """How many of the tokens read the last one did not see."""
        return max(0, self.seen - self._layout.size)

    def room(self) -> int:
        """Return how many tokens the next pass may read: up to the window's end at first, then some at a time."""
        left = self._layout.size - self.seen
        return left if left > 0 else self._layout.rows

    def begin(self, count: int) -> Sequence[int]:
        """Begin a pass over the next ``count`` tokens; return their positions."""
        size, sinks = self._layout.size, self._layout.sinks
        self.whole = self.seen + count <= size
        self.mask = None
        if self.whole:
            return range(self.seen, self.seen + count)
        shift = 0
        if self._next + count > 2 * size:
            # Positions start again at their places in the window. Seldom, as each move rounds the keys once.
            shift = self._next - (size - 1)
            self._next -= shift
        positions = range(self._next, self._next + count)
        device = self.layers[0].keys.device
        moves = torch.arange(positions.start - (size - 1), positions.stop - (size - 1), device=device)
        for layer in self.layers:
            layer.prepare(moves, shift)
        self._next += count
        if count > 1:
            self.mask = _mask(count, sinks, size - sinks - 1).to(device)
        return positions

    def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> Seen:
        """Add what a layer makes of the tokens of the pass; return what these attend to there."""
        shown = self.layers[layer].update(keys, values)
        return Seen(*shown, mask=self.mask)

    def end(self, count: int) -> None:
        """End the pass, all of whose ``count`` tokens stay."""
        self.seen += count

    def holds(self, length: int) -> bool:
        """Whether another text can go on from the first ``length`` tokens: while none is dropped, or from its end."""
        return length == self.seen or (self.seen <= self._layout.size and length < self.seen)

    def fork(self, length: int, capacity: int) -> WindowCache:
        """Return a copy that has seen the first ``length`` tokens."""
        copy = WindowCache(self._layout)
        copy.seen, copy._next = length, self._next
        forgotten = self.seen - length
        copy.layers = [layer.fork(forgotten) for layer in self.layers]
        return copy

    def shrink(self) -> None:
        """Do nothing: no memory is set aside."""


class _WindowLayer(DynamicLayer):
    """One layer's: first the sinks at positions 0, 1, …, then the last tokens without a gap between them.

    Until it is told to prepare, it keeps everything, as its base does.
    """

    def __init__(self, sinks: int, recent: int, rotation: Rotation | None) -> None:
        super().__init__()
        self._sinks = sinks
        self._recent = recent
        self._rotation = rotation
        self._moves: torch.Tensor | None = None

    def fork(self, forgotten: int) -> _WindowLayer:
        """Return a copy without the last ``forgotten`` tokens."""
        copy = _WindowLayer(self._sinks, self._recent, self._rotation)
        kept = self.keys.shape[2] - forgotten
        copy.lazy_initialization(self.keys, self.values)
        copy.keys, copy.values = self.keys[:, :, :kept].clone(), self.values[:, :, :kept].clone()
        copy._moves = self._moves
        return copy

    def prepare(self, moves: torch.Tensor, shift: int) -> None:
        """Keep the sinks and the recent tokens, for a pass whose rows see the sinks ``moves`` (rows,) positions later.

        The recent tokens move ``shift`` positions back.
        """
        first = self.keys.shape[2] - self._recent
        recent = self.keys[:, :, first:]
        if shift:
            recent = self._moved(recent, torch.tensor(-shift, device=recent.device))
        self.keys = torch.cat([self.keys[:, :, : self._sinks], recent], dim=2)
        self.values = torch.cat([self.values[:, :, : self._sinks], self.values[:, :, first:]], dim=2)
        self._moves = moves

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add those of a pass, (1, heads, rows, head size); return what its rows see, as :func:`_mask` orders it."""
        keys, values = super().update(key_states, value_states)
        if self._moves is None:
            return keys, values
        rows = len(self._moves)
        copied = [states[:, :, None, : self._sinks].expand(-1, -1, rows, -1, -1) for states in (keys, values)]
        copies = self._moved(copied[0], self._moves[:, None]).flatten(2, 3), copied[1].flatten(2, 3)
        return (
            torch.cat([copies[0], keys[:, :, self._sinks :]], dim=2),
            torch.cat([copies[1], values[:, :, self._sinks :]], dim=2),
        )

    def _moved(self, keys: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return keys if self._rotation is None else self._rotation.moved(keys, by)
