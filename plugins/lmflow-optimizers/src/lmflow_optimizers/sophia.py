"""Sophia (arXiv:2305.14342), with the squared gradient as its estimate of the curvature.

The estimates of the paper need second derivatives or another pass with labels that the model samples, neither of which
an optimizer can ask for, so that this is not the method of the paper to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_optimizer
import torch

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_optimizers.making import CountedByParameter, Moments
from lmflow_optimizers.options import SophiaOptions


class SquaredGradientSophia(pytorch_optimizer.SophiaH):
    """The library's Sophia with another estimate of the curvature, which takes no memory between two of them.

    Attributes:
        curvature_scale: by which the squared gradient of a mean is multiplied.
    """

    curvature_scale = 1.0

    def compute_hutchinson_hessian(self, param_groups: Any, state: Any, **_: Any) -> None:
        """Set the estimate of each parameter that has a gradient."""
        for group in param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state[parameter]["hessian"].addcmul_(parameter.grad, parameter.grad, value=self.curvature_scale)


class Sophia(CountedByParameter, Moments):
    """Momentum over curvature, clipped: no weight moves by more than the learning rate in a step."""

    library = SquaredGradientSophia
    options_class = SophiaOptions
    betas = (0.965, 0.99)
    epsilon = None
    fixed = {"p": 1.0}  # noqa: RUF012

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer."""
        made = super().make(groups, settings)
        assert isinstance(made, SquaredGradientSophia)
        made.curvature_scale = self.options.sophia_rho * self.options.sophia_batch_tokens
        made.register_step_post_hook(_forget_estimates)
        return made

    def arguments(self) -> dict[str, Any]:
        """Add how often the curvature is estimated."""
        return {**super().arguments(), "update_period": self.options.sophia_interval_steps}


def _forget_estimates(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for kept in optimizer.state.values():
        kept.pop("hessian", None)
