"""Muon (Jordan, 2024; arXiv:2502.16982): orthogonal updates of hidden weight matrices, AdamW for all else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_optimizer

from lmflow_core.api import ParameterGroup, TrainingSettings
from lmflow_optimizers.hidden import split_groups
from lmflow_optimizers.making import CountedByParameter, Moments
from lmflow_optimizers.options import MuonOptions


class Muon(CountedByParameter, Moments):
    """Muon for hidden weights, AdamW for embeddings, head, biases and norms."""

    library = pytorch_optimizer.Muon
    options_class = MuonOptions
    betas = (0.9, 0.95)

    def groups(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
        """Return groups with what each is updated by."""
        moments, options = super().arguments(), self.options
        muon = {
            "use_muon": True,
            "momentum": options.muon_momentum,
            "nesterov": options.muon_nesterov,
            "ns_steps": options.muon_iterations,
            "use_adjusted_lr": options.muon_scaling == "rms",
        }
        adamw = {"use_muon": False, **moments}
        return [{**group, **(muon if hidden else adamw)} for hidden, group in split_groups(groups, settings, "muon")]

    def arguments(self) -> dict[str, Any]:
        """Return nothing: all stands in the groups."""
        return {}
