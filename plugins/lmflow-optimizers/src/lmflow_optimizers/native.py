"""Optimizers of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_optimizers.making import LibraryOptimizer, Moments
from lmflow_optimizers.options import (
    AdadeltaOptions,
    AdafactorOptions,
    AdagradOptions,
    MomentOptions,
    NAdamOptions,
    RmspropOptions,
    SgdOptions,
)


class Adam(Moments):
    """Adam (arXiv:1412.6980); weight decay is a part of the gradient."""

    library = torch.optim.Adam
    options_class = MomentOptions


class Adamax(Moments):
    """Adamax (arXiv:1412.6980): Adam with the largest gradient in the place of the root of the mean of squares."""

    library = torch.optim.Adamax
    options_class = MomentOptions


class RAdam(Moments):
    """RAdam (arXiv:1908.03265): Adam that warms up by itself."""

    library = torch.optim.RAdam
    options_class = MomentOptions


class NAdam(Moments):
    """NAdam (Dozat, 2016): Adam with Nesterov's momentum."""

    library = torch.optim.NAdam
    options_class = NAdamOptions

    def arguments(self) -> dict[str, Any]:
        """Add how its momentum grows."""
        return {**super().arguments(), "momentum_decay": self.options.nadam_momentum_decay}


class Adadelta(LibraryOptimizer):
    """Adadelta (arXiv:1212.5701), in units of the weights: its natural learning rate is 1."""

    library = torch.optim.Adadelta
    options_class = AdadeltaOptions

    def arguments(self) -> dict[str, Any]:
        """Return its decay."""
        return {"rho": self.options.adadelta_rho}


class Adagrad(LibraryOptimizer):
    """Adagrad (Duchi et al., 2011): steps shrink with the sum of squared gradients."""

    library = torch.optim.Adagrad
    options_class = AdagradOptions
    fixed = {"eps": 1e-8}  # noqa: RUF012

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer, with state for a parameter from its first gradient on, as the others have it.

        PyTorch's has state for all from the start, and cannot do without when a tuner drops that of a frozen one.
        """
        made = super().make(groups, settings)
        made.state.clear()
        made.register_step_pre_hook(_begin_sums)
        return made

    def arguments(self) -> dict[str, Any]:
        """Return where its sum starts."""
        return {"initial_accumulator_value": self.options.adagrad_accumulator}


def _begin_sums(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not optimizer.state[parameter]:
                begun = torch.full_like(parameter, group["initial_accumulator_value"])
                optimizer.state[parameter].update(step=torch.zeros(()), sum=begun)


class Adafactor(LibraryOptimizer):
    """Adafactor (arXiv:1804.04235): squares by row and column alone, steps relative to the size of a weight."""

    library = torch.optim.Adafactor
    options_class = AdafactorOptions

    def arguments(self) -> dict[str, Any]:
        """Return its decay and its bound."""
        return {"beta2_decay": -self.options.adafactor_decay, "d": self.options.adafactor_clip}


class Sgd(LibraryOptimizer):
    """Descent with momentum."""

    library = torch.optim.SGD
    options_class = SgdOptions

    def arguments(self) -> dict[str, Any]:
        """Return its momentum."""
        return {"momentum": self.options.sgd_momentum}


class Rmsprop(LibraryOptimizer):
    """RMSprop (Tieleman and Hinton, 2012), with momentum."""

    library = torch.optim.RMSprop
    options_class = RmspropOptions

    def arguments(self) -> dict[str, Any]:
        """Return its decay and momentum."""
        return {"alpha": self.options.rmsprop_alpha, "momentum": self.options.sgd_momentum}
