"""GaLore (arXiv:2403.03507) and APOLLO (arXiv:2412.05270): Adam's means of gradients that are projected to a low rank.

Both are the library's GaLore. Between two steps, what it knows of a projection is kept in the state of the parameter as
a tensor and a number, so that checkpoints and tuners can handle it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_optimizers.hidden import split_groups
from lmflow_optimizers.making import CountedByParameter, Moments
from lmflow_optimizers.options import ApolloOptions, GaloreOptions

# Norms of updates grow by at most this much from a step to the next (arXiv:2410.01623).
_GROWTH = 1.01
_TINY = 1e-8


class ScalingProjector(GaLoreProjector):
    """Projects by a random matrix, and gives back the gradient itself, scaled as it is scaled in the projection.

    Attributes:
        last_norm: of the update before; None before the first.
    """

    def __init__(self, by_channel: bool, seed: int, **values: Any) -> None:
        super().__init__(**values)
        self._by_channel, self._seed = by_channel, seed
        self.last_norm: torch.Tensor | None = None

    def project(self, grad: torch.Tensor, num_steps: int, *_: Any, **__: Any) -> torch.Tensor:
        """Return the projected gradient and remember both.

        The matrix depends on the seed, the step and the shape alone: all processes of a job have the same.
        """
        self._grad = grad
        with torch.random.fork_rng(devices=[grad.device] if grad.is_cuda else []):
            torch.manual_seed(self._seed + num_steps)
            self._low: torch.Tensor = super().project(grad, num_steps, from_random_matrix=True)
        return self._low

    def project_back(self, low_rank_grad: torch.Tensor) -> torch.Tensor:
        """Return the gradient, each channel or the whole as much longer as the projected one has become."""
        shorter = 0 if self._grad.shape[0] < self._grad.shape[1] else 1
        along = {"dim": shorter, "keepdim": True} if self._by_channel else {}
        factor = torch.linalg.vector_norm(low_rank_grad, **along) / (
            torch.linalg.vector_norm(self._low, **along) + _TINY
        )
        update = self._grad * factor
        norm = torch.linalg.vector_norm(update)
        if self.last_norm is not None:
            limit = (norm / (self.last_norm + _TINY)).clamp_min(_GROWTH) / _GROWTH
            update, norm = update / limit, norm / limit
        self.last_norm = norm
        del self._grad, self._low
        return update.mul_(math.sqrt(self.scale))


class Galore(CountedByParameter, Moments):
    """Means in the space of a gradient's largest singular vectors; embeddings, head and vectors have AdamW's."""

    library = pytorch_optimizer.GaLore
    options_class = GaloreOptions
    epsilon = 1e-6
    family: ClassVar[str] = "galore"

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer."""
        self._seed = settings.seed
        made = super().make(groups, settings)
        made.register_step_pre_hook(self._before)
        made.register_step_post_hook(self._behind)
        return made

    def groups(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
        """Return groups with what is projected; a matrix of no more than the rank is not."""
        values = {
            "rank": getattr(self.options, f"{self.family}_rank"),
            "update_proj_gap": getattr(self.options, f"{self.family}_interval_steps"),
            "scale": getattr(self.options, f"{self.family}_scale"),
            "projection_type": "std",
        }
        return [
            {**group, **(values if hidden and min(group["params"][0].shape) > values["rank"] else {})}
            for hidden, group in split_groups(groups, settings, self.family)
        ]

    def projector(self, number: int, **values: Any) -> GaLoreProjector:
        """Return what projects the gradient of the parameter of a number."""
        return GaLoreProjector(**values)

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for number, group in enumerate(optimizer.param_groups):
            (parameter,) = group["params"]
            if "rank" not in group or parameter.grad is None:
                continue
            state = optimizer.state[parameter]
            names = ("rank", "update_proj_gap", "scale", "projection_type")
            projector = self.projector(number, **{name: group[name] for name in names})
            projector.ortho_matrix = state.pop("projection", None)
            projector.last_svd_step = state.pop("projected_at", -1)
            if "update_norm" in state:
                projector.last_norm = state.pop("update_norm")  # type: ignore[attr-defined]
            state["projector"] = projector

    def _behind(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for state in optimizer.state.values():
            if projector := state.pop("projector", None):
                # As it is read back from files that know no strides: another order of sums would change a resumed run.
                state["projection"] = projector.ortho_matrix.contiguous()
                state["projected_at"] = projector.last_svd_step
                if getattr(projector, "last_norm", None) is not None:
                    state["update_norm"] = projector.last_norm


class Apollo(Galore):
    """Steps by the gradient itself, scaled by channel as Adam scales a random projection of it."""

    options_class = ApolloOptions
    family = "apollo"

    def projector(self, number: int, **values: Any) -> GaLoreProjector:
        """Return one whose random matrices are those of the parameter."""
        seed = self._seed * 1_000_003 + number * 10_007
        return ScalingProjector(self.options.apollo_scaled == "channel", seed, **values)
