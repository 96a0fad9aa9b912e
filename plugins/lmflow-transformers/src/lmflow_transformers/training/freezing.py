"""Groups of parameters that are frozen for now, where an optimizer is given each group as a piece of a long row.

ZeRO flattens a group of parameters, spreads the row and lets the optimizer update this process's piece of it, with a
gradient of zero for what has none: a frozen weight would decay, and keep its state. So a group that is frozen is hidden
from the optimizer, and its state dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from lmflow_core.api import LmflowError

_NUMBER = "lmflow_group"


class FrozenGroups(TrainerCallback):
    """Keeps an optimizer from what is frozen. A tuner must freeze and thaw the parameters of a group together."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Know the parameters of an optimizer, before an engine puts pieces of rows in their place."""
        self._parameters: list[list[Any]] = [list(group["params"]) for group in optimizer.param_groups]
        for number, group in enumerate(optimizer.param_groups):
            group[_NUMBER] = number
        self._optimizer = optimizer
        self._pieces: dict[int, dict[int, torch.Tensor]] = {}
        self._hidden: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        optimizer.register_step_pre_hook(self._hide)
        optimizer.register_step_post_hook(self._show)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the state of what the tuner has frozen."""
        for number, pieces in self._pieces.items():
            if self._is_frozen(number):
                self._drop(number, list(pieces.values()))

    def _is_frozen(self, number: int) -> bool:
        """Whether a group is frozen.

        Raises:
            LmflowError: a part of it is.
        """
        states = {parameter.requires_grad for parameter in self._parameters[number]}
        if len(states) > 1:
            raise LmflowError(
                "this tuner freezes a part of a group of parameters, which the engine keeps in one piece: give groups "
                "that are frozen and thawed as a whole, or take --engine torchrun or --engine fsdp"
            )
        return states == {False}

    def _drop(self, number: int, pieces: list[torch.Tensor]) -> None:
        for piece in pieces:
            self._optimizer.state.pop(piece, None)
        for parameter in self._parameters[number]:
            # DeepSpeed keeps views of the state at the parameter's side.
            if (link := getattr(parameter, "_hp_mapping", None)) is not None:
                link.optim_fragment = {}

    def _hide(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            number, pieces = group[_NUMBER], group["params"]
            self._pieces.setdefault(number, {}).update({id(piece): piece for piece in pieces})
            if pieces and self._is_frozen(number):
                self._drop(number, pieces)
                self._hidden += [(piece, piece.grad) for piece in pieces]
                for piece in pieces:
                    piece.grad = None

    def _show(self, *_: Any) -> None:
        for piece, gradient in self._hidden:
            piece.grad = gradient
        self._hidden.clear()
