"""Schedule-free optimizers (arXiv:2405.15682): the weights one uses are an average, others are trained."""

from __future__ import annotations

from typing import Any

import pytorch_optimizer
import torch

from lmflow_optimizers.making import CountedByParameter, Moments
from lmflow_optimizers.options import ScheduleFreeOptions, ScheduleFreeSgdOptions


class _Averaged(CountedByParameter):
    def use_weights(self, optimizer: torch.optim.Optimizer, *, training: bool) -> None:
        """Set the parameters to the weights that train, or to their average.

        Those that train are kept meanwhile: computed back they would differ in their last bits, and training would
        depend on how often it is measured.
        """
        own: Any = optimizer
        if own.param_groups[0]["train_mode"] == training:
            return
        parameters = [parameter for group in own.param_groups for parameter in group["params"]]
        if not training:
            self._training = [parameter.detach().clone() for parameter in parameters]
            own.eval()
            return
        own.train()
        for parameter, kept in zip(parameters, self._training, strict=True):
            parameter.data.copy_(kept)
        self._training = []


class ScheduleFreeAdamW(_Averaged, Moments):
    """Schedule-free AdamW."""

    library = pytorch_optimizer.ScheduleFreeAdamW
    options_class = ScheduleFreeOptions


class ScheduleFreeSgd(_Averaged):
    """Schedule-free descent."""

    library = pytorch_optimizer.ScheduleFreeSGD
    options_class = ScheduleFreeSgdOptions

    def arguments(self) -> dict[str, Any]:
        """Return its momentum."""
        return {"momentum": self.options.sgd_momentum}
