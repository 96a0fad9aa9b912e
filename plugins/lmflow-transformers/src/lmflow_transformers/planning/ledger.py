"""What is alive at each moment of a step, by kind; the most that is alive at a time."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, CAST, GRADIENTS, LOGITS, ACTIVATIONS, MAIN = (
    "weights",
    "weights as they are computed with",
    "gradients",
    "logits",
    "activations",
    "offloaded activations",
)


class Ledger(TorchDispatchMode):
    """Notes the memory of every tensor that an operation makes, until the last one that shares it is gone.

    Attributes:
        peak: bytes by kind at the moment when most counted.
        live: bytes by kind now.
        highest: the most of each kind, at any moment.
    """

    def __init__(self, counts: Mapping[str, float], vocabulary: int) -> None:
        """Begin with nothing.

        Args:
            counts: how much a byte of a kind counts towards the peak: 1 where a kind is not named, 0 for what is
                elsewhere, a fraction for what is spread over processes.
            vocabulary: the size by which logits are told from other tensors.
        """
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.highest: Counter[str] = Counter()
        self._counts, self._vocabulary = counts, vocabulary
        self._most = self._now = 0.0
        self._known: dict[int, tuple[weakref.ref[Any], int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        copied = func is torch.ops.aten._to_copy.default and self.kind(args[0]) == WEIGHTS
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor, CAST if copied else self._kind_of_shape(tensor))
        return result

    def kind(self, tensor: torch.Tensor) -> str | None:
        """Return the kind of a tensor; None for one that is not known."""
        known = self._known.get(id(tensor.untyped_storage()))
        return known[2] if known else None

    def mark(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor as of another kind from now on."""
        storage = tensor.untyped_storage()
        if id(storage) in self._known:
            reference, size, before = self._known[id(storage)]
            self._add(before, -size)
            self._known[id(storage)] = (reference, size, kind)
            self._add(kind, size)
        else:
            self._note(tensor, kind)

    def _kind_of_shape(self, tensor: torch.Tensor) -> str:
        return LOGITS if tensor.dim() > 1 and self._vocabulary in tensor.shape else ACTIVATIONS

    def _note(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._known:
            self._known[key] = (weakref.ref(storage, lambda _: self._forget(key)), size, kind)
            self._add(kind, size)

    def _forget(self, key: int) -> None:
        _, size, kind = self._known.pop(key)
        self._add(kind, -size)

    def _add(self, kind: str, size: int) -> None:
        self.live[kind] += size
        self.highest[kind] = max(self.highest[kind], self.live[kind])
        self._now += size * self._counts.get(kind, 1.0)
        if self._now > self._most:
            self._most, self.peak = self._now, self.live.copy()
