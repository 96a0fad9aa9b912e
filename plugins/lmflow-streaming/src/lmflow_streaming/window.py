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
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lmflow_streaming.rotation import Rotation
from lmflow_transformers.api import CausalModel, for_decoding

_ROWS = 128


class Window:
    """A model that reads one text.

    Args:
        model: loaded; all its layers must see the whole text.
        size: N, tokens that a token sees, itself among them.
        sinks: M, how many of them are the first ones; fewer than ``size``.
        rotations: how each layer rotates its keys.

    """

    def __init__(self, model: CausalModel, size: int, sinks: int, rotations: Sequence[Rotation | None]) -> None:
        self._model = model
        self._size = size
        self._sinks = sinks
        # The copies of the sinks take no more room than the window does.
        self._rows = max(1, min(_ROWS, size, size // max(1, sinks)))
        self._cache = _WindowCache(sinks, size - sinks - 1, rotations)
        self._next = size
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
        return max(0, self.seen - self._size)

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
        for part in self._parts(ids):
            self._whole = False  # until every layer has kept the pass
            arguments = self._plain() if self.seen + part.shape[1] <= self._size else self._windowed(part.shape[1])
            output = self._model.network(input_ids=part, logits_to_keep=0 if every else 1, **arguments)
            self._ids += part[0].tolist()
            self._whole = True
            yield output.logits[0].float()

    def _parts(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """Cut ids into passes: one up to the size of the window, as plain decoding does it, then smaller ones."""
        room = max(0, self._size - self.seen)
        if room:
            yield ids[:, :room]
        if ids.shape[1] > room:
            yield from ids[:, room:].split(self._rows, dim=1)

    def _plain(self) -> dict[str, Any]:
        return for_decoding(self._model.network, self._cache)

    def _windowed(self, rows: int) -> dict[str, Any]:
        device = self._model.device
        shift = 0
        if self._next + rows > 2 * self._size:
            # Positions start again at their places in the window. Seldom, as each move rounds the keys once.
            shift = self._next - (self._size - 1)
            self._next -= shift
        positions = torch.arange(self._next, self._next + rows, device=device)
        self._cache.prepare(positions - (self._size - 1), shift)
        self._next += rows
        mask = None if rows == 1 else _mask(rows, self._sinks, self._size - self._sinks - 1).to(device)
        if mask is not None:
            dtype = self._model.base.dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask, torch.finfo(dtype).min)
        return {**self._plain(), "position_ids": positions[None], "attention_mask": mask}


def _mask(rows: int, sinks: int, recent: int) -> torch.Tensor:
    """Return which keys each row of a pass sees, (1, 1, rows, rows * sinks + recent + rows), bool.

    The keys are a copy of the sinks for each row, the ``recent`` tokens before the pass, and the pass itself.
    """
    row = torch.arange(rows)[:, None]
    key = torch.arange(recent + rows)[None]
    own = torch.eye(rows, dtype=torch.bool).repeat_interleave(sinks, dim=1)
    return torch.cat([own, (key >= row) & (key <= row + recent)], dim=1)[None, None]


class _WindowCache(DynamicCache):
    """Keys and values of the sinks and of the last tokens, layer by layer."""

    def __init__(self, sinks: int, recent: int, rotations: Sequence[Rotation | None]) -> None:
        super().__init__()
        self.layers = [_WindowLayer(sinks, recent, rotation) for rotation in rotations]

    def prepare(self, moves: torch.Tensor, shift: int) -> None:
        """Forget what the next pass does not see; see :meth:`_WindowLayer.prepare`."""
        for layer in self.layers:
            layer.prepare(moves, shift)


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
