"""Optimizers of pytorch-optimizer with a step for each weight; decay is that of their papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_optimizer
import torch

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_optimizers.making import CountedByParameter, Moments
from lmflow_optimizers.options import (
    AdaBoundOptions,
    AdamPOptions,
    AdanOptions,
    BetaOptions,
    LarsOptions,
    MomentOptions,
    SgdpOptions,
    YogiOptions,
)


class AdaBelief(CountedByParameter, Moments):
    """AdaBelief (arXiv:2010.07468): steps by how far gradients are from what was expected."""

    library = pytorch_optimizer.AdaBelief
    options_class = MomentOptions
    epsilon = 1e-16


class AdaBound(CountedByParameter, Moments):
    """AdaBound (arXiv:1902.09843): Adam within bounds that close in on plain descent."""

    library = pytorch_optimizer.AdaBound
    options_class = AdaBoundOptions

    def arguments(self) -> dict[str, Any]:
        """Add the bounds."""
        own = {"final_lr": self.options.adabound_final_lr, "gamma": self.options.adabound_gamma}
        return {**super().arguments(), **own}


class AdamP(CountedByParameter, Moments):
    """AdamP (arXiv:2006.08217): Adam without the part of a step that only makes scale-free weights longer."""

    library = pytorch_optimizer.AdamP
    options_class = AdamPOptions

    def arguments(self) -> dict[str, Any]:
        """Add how scale-free weights are told and decay."""
        own = {"delta": self.options.adamp_delta, "wd_ratio": self.options.adamp_decay_ratio}
        return {**super().arguments(), **own}


class Adan(CountedByParameter, Moments):
    """Adan (arXiv:2208.06677): Nesterov's momentum from differences of gradients; its decay is a division."""

    library = pytorch_optimizer.Adan
    options_class = AdanOptions
    betas = (0.98, 0.92, 0.99)


class Lamb(CountedByParameter, Moments):
    """LAMB (arXiv:1904.00962): Adam with steps relative to the norm of a weight; decay is a part of the step."""

    library = pytorch_optimizer.Lamb
    options_class = MomentOptions
    epsilon = 1e-6
    fixed = {"weight_decouple": False}  # noqa: RUF012

    def groups(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
        """Return groups of which biases and norms take Adam's own steps, as their norm is no measure for them."""
        made = super().groups(groups, settings)
        return [{**group, "adam": group["params"][0].dim() <= 1} for group in made]


class Lion(CountedByParameter, Moments):
    """Lion (arXiv:2302.06675): the sign of the momentum."""

    library = pytorch_optimizer.Lion
    options_class = BetaOptions
    betas = (0.9, 0.99)
    epsilon = None


def _begin_means(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and not optimizer.state[parameter]:
                squares = torch.full_like(parameter, group["initial_accumulator"])
                optimizer.state[parameter].update(exp_avg=torch.zeros_like(parameter), exp_avg_sq=squares)


class NovoGrad(CountedByParameter, Moments):
    """NovoGrad (arXiv:1905.11286): one mean of squares for each weight matrix; decay is a part of the step."""

    library = pytorch_optimizer.NovoGrad
    options_class = MomentOptions
    betas = (0.95, 0.98)
    fixed = {"weight_decouple": False}  # noqa: RUF012


class Yogi(CountedByParameter, Moments):
    """Yogi (Zaheer et al., 2018): Adam whose mean of squares changes by bounded amounts."""

    library = pytorch_optimizer.Yogi
    options_class = YogiOptions
    epsilon = 1e-3

    def arguments(self) -> dict[str, Any]:
        """Add where its mean of squares starts."""
        return {**super().arguments(), "initial_accumulator": self.options.yogi_accumulator}

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer, whose mean of gradients begins at zero: the library's would move without a gradient."""
        made = super().make(groups, settings)
        made.register_step_pre_hook(_begin_means)
        return made


class Lars(CountedByParameter):
    """LARS (arXiv:1708.03888): descent with steps relative to the norm of a weight matrix."""

    library = pytorch_optimizer.LARS
    options_class = LarsOptions

    def arguments(self) -> dict[str, Any]:
        """Return momentum and trust."""
        return {"momentum": self.options.sgd_momentum, "trust_coefficient": self.options.lars_trust}

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer, with which vectors decay too where their group does."""
        made = super().make(groups, settings)
        made.register_step_pre_hook(_let_vectors_decay)
        return made


def _let_vectors_decay(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.dim() <= 1 and parameter.grad is not None:
                parameter.grad.add_(parameter.detach(), alpha=group["weight_decay"])


class Sgdp(CountedByParameter):
    """SGDP (arXiv:2006.08217): descent without the part of a step that only makes scale-free weights longer."""

    library = pytorch_optimizer.SGDP
    options_class = SgdpOptions

    def arguments(self) -> dict[str, Any]:
        """Return momentum, and how scale-free weights are told and decay."""
        return {
            "momentum": self.options.sgd_momentum,
            "delta": self.options.adamp_delta,
            "wd_ratio": self.options.adamp_decay_ratio,
        }
