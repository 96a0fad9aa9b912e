"""Tensors that backward makes again instead of keeping them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from lmflow_transformers.comparing import same_memory

Recipe = Callable[[], torch.Tensor]
_REMEMBERED = 4


class Recomputable:
    """The newest tensors that backward can make again, and how.

    Each is held until a few later ones are known: while it lives, its memory names it alone.
    """

    def __init__(self) -> None:
        self._newest: deque[tuple[torch.Tensor, Recipe]] = deque(maxlen=_REMEMBERED)

    def remember(self, tensor: torch.Tensor, recipe: Recipe) -> None:
        """Know a tensor as one that ``recipe`` makes again."""
        self._newest.append((tensor.detach(), recipe))

    def pack(self, tensor: torch.Tensor) -> Any:
        """Replace a tensor that autograd is about to keep by its recipe, if there is one."""
        for known, recipe in self._newest:
            if same_memory(known, tensor) and known.numel() == tensor.numel() and tensor.is_contiguous():
                return recipe, tensor.shape
        return tensor

    def unpack(self, kept: Any) -> torch.Tensor:
        """Return the tensor that was to be kept."""
        if isinstance(kept, torch.Tensor):
            return kept
        recipe, shape = kept
        made: torch.Tensor = recipe().view(shape)
        return made


_ACTIVE: ContextVar[Recomputable | None] = ContextVar("recomputable", default=None)


@contextmanager
def recomputing() -> Iterator[None]:
    """For the time of the context, let autograd keep recipes where :func:`recomputable` gave one."""
    memory = Recomputable()
    token = _ACTIVE.set(memory)
    try:
        with torch.autograd.graph.saved_tensors_hooks(memory.pack, memory.unpack):
            yield
    finally:
        _ACTIVE.reset(token)


def recomputable(tensor: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return the tensor; what comes to keep it for backward keeps its recipe instead, where that is wanted.

    ``recipe`` returns an equal, contiguous tensor from tensors that are kept anyway.
    """
    memory = _ACTIVE.get()
    if memory is not None:
        memory.remember(tensor, recipe)
    return tensor
