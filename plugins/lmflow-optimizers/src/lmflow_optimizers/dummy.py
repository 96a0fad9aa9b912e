"""An optimizer that learns nothing."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_optimizers.making import LibraryOptimizer


class DecayOnly(torch.optim.Optimizer):
    """Shrinks weights by the learning rate times their decay, and ignores gradients."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let the weights that have a gradient decay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])


class Dummy(LibraryOptimizer):
    """Weight decay alone: what a run costs without an optimizer, and what it does without learning."""

    library = DecayOnly
