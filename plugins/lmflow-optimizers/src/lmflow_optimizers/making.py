"""What all targets share: an optimizer class of a library, with groups and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_transformers.api import AdamW, torch_groups


class LibraryOptimizer(AdamW):
    """Makes an optimizer of a class, from options.

    Class attributes:
        library: the class.
        options_class: what is taken when no options are given.
        fixed: arguments of the class that are no options.
    """

    library: ClassVar[type[torch.optim.Optimizer]]
    options_class: ClassVar[type | None] = None
    fixed: ClassVar[dict[str, Any]] = {}

    def __init__(self, options: Any = None) -> None:
        self.options = options if options is not None or self.options_class is None else self.options_class()

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer."""
        made = self.library(self.groups(groups, settings), **{**self.fixed, **self.arguments()})
        made.register_step_pre_hook(_leave_out_empty)
        return made

    def groups(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
        """Return the groups that the class is given."""
        return torch_groups(groups, settings)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that follow from the options."""
        return {}


def _leave_out_empty(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Take the gradients of parameters without a number: some libraries divide by how many there are."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.numel():
                parameter.grad = None


class Moments(LibraryOptimizer):
    """One with decays and an epsilon.

    Class attributes:
        betas: its own decays.
        epsilon: its own; None where it has none.
    """

    betas: ClassVar[tuple[float, ...]] = (0.9, 0.999)
    epsilon: ClassVar[float | None] = 1e-8

    def arguments(self) -> dict[str, Any]:
        """Return decays and epsilon, given or its own."""
        betas = tuple(self._given(f"adam_beta{number}", own) for number, own in enumerate(self.betas, 1))
        return {"betas": betas} | ({} if self.epsilon is None else {"eps": self._given("adam_epsilon", self.epsilon)})

    def _given(self, name: str, own: float) -> float:
        value: float | None = getattr(self.options, name)
        return own if value is None else value


class CountedByParameter(LibraryOptimizer):
    """One of pytorch-optimizer, which counts steps by group.

    A parameter that is frozen for a while, as in LISA, would be taken for an old one when it comes back without state:
    its means would not be corrected, and its first steps would be three times too long. So each parameter is a group of
    its own, which rests while it has no gradient and begins anew without state.
    """

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer."""
        made = super().make(groups, settings)
        _Counting(made)
        return made

    def groups(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
        """Return a group for each parameter."""
        return by_parameter(torch_groups(groups, settings))


def by_parameter(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a group like the given one for each of its parameters, in their order."""
    return [{**group, "params": [parameter]} for group in groups for parameter in group["params"]]


class _Counting:
    """Lets an optimizer whose groups have a parameter each see those with a gradient alone, for each step."""

    # What pytorch-optimizer counts in a group, as it begins.
    _COUNTERS: ClassVar[dict[str, float]] = {"step": 0, "weight_sum": 0.0, "lr_max": -1.0}

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._behind)

    def _before(self, optimizer: Any, *_: Any) -> None:
        self._groups = optimizer.param_groups
        self._rates = getattr(optimizer, "base_lrs", None)
        acting = [number for number, group in enumerate(self._groups) if group["params"][0].grad is not None]
        optimizer.param_groups = [self._groups[number] for number in acting]
        if self._rates is not None:  # by the number of the group
            optimizer.base_lrs = [self._rates[number] for number in acting]
        for group in optimizer.param_groups:
            if not optimizer.state.get(group["params"][0]):
                group.update({name: value for name, value in self._COUNTERS.items() if name in group})

    def _behind(self, optimizer: Any, *_: Any) -> None:
        optimizer.param_groups = self._groups
        if self._rates is not None:
            optimizer.base_lrs = self._rates
