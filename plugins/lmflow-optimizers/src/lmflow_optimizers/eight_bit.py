"""Optimizers of bitsandbytes: state in eight bits (arXiv:2110.02861), or paged to main memory when a GPU is full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import bitsandbytes
import torch

from lmflow_core.api import ParameterGroup, RequestError, TrainingSettings
from lmflow_optimizers.making import Moments
from lmflow_optimizers.options import BetaOptions, MomentOptions


class _BitsAndBytes(Moments):
    paged: ClassVar[bool] = False

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer.

        Raises:
            RequestError: state is to be paged where there is no GPU.
        """
        devices = {parameter.device.type for group in groups for parameter in group.parameters.values()}
        if self.paged and "cpu" in devices:
            raise RequestError(
                "a paged optimizer moves its state between a GPU and main memory, and this run has no GPU: "
                "take --optimizer adamw_8bit or lion_8bit"
            )
        return super().make(groups, settings)

    def arguments(self) -> dict[str, Any]:
        """Add whether state is paged."""
        return {**super().arguments(), "is_paged": self.paged}


class AdamW8bit(_BitsAndBytes):
    """AdamW with state in eight bits, in blocks of 256; that of small parameters is float32."""

    library = bitsandbytes.optim.AdamW8bit
    options_class = MomentOptions


class PagedAdamW8bit(AdamW8bit):
    """The same, paged."""

    paged = True


class PagedAdamW(AdamW8bit):
    """AdamW with float32 state, paged."""

    library = bitsandbytes.optim.AdamW
    paged = True


class Lion8bit(_BitsAndBytes):
    """Lion with state in eight bits, in blocks of 256; that of small parameters is float32."""

    library = bitsandbytes.optim.Lion8bit
    options_class = BetaOptions
    betas = (0.9, 0.99)
    epsilon = None


class PagedLion8bit(Lion8bit):
    """The same, paged."""

    paged = True


class PagedLion(Lion8bit):
    """Lion with float32 state, paged."""

    library = bitsandbytes.optim.Lion
    paged = True
