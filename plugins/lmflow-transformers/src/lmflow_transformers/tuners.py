"""Full fine-tuning, and what every tuner of transformers models shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import Destination, LoadPlan, ModelError, ParameterGroup, TrainingCallback
from lmflow_transformers.devices import pick_device, pick_dtype
from lmflow_transformers.models import CausalModel
from lmflow_transformers.training.optimizers import parameter_groups


class FullTuner:
    """Trains every parameter; the result is a whole model."""

    freezes_while_training = False

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Keep weights that train in float32 where they are computed with in less."""
        return with_master_weights(plan)

    def check(self, model: CausalModel) -> None:
        """Check that the model is a whole one.

        Raises:
            ModelError: it carries an adapter, or is to be quantised.
        """
        if model.adapter is not None:
            raise ModelError("--tuner full on a model with an adapter: merge it first with lmflow merge")
        if model.plan.quantization is not None:
            raise _quantised(model, model.plan.quantization.form)

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Let every parameter train.

        Raises:
            ModelError: some are quantised, as they were before.
        """
        parameters = model.network.named_parameters()
        if quantised := next((name for name, p in parameters if not p.is_floating_point()), None):
            raise _quantised(model, quantised)
        model.network.requires_grad_(True)
        freeze_other_parts(model)

    def parameter_groups(self, model: CausalModel) -> Sequence[ParameterGroup]:
        """Return what trains; biases and norms do not decay."""
        return parameter_groups(model.network)

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Add nothing to the run."""
        return ()

    def reference(self, model: CausalModel) -> AbstractContextManager[Any] | None:
        """Return nothing: the weights from before training are gone."""
        return None

    def save(self, model: CausalModel, destination: Destination) -> None:
        """Write the whole model, in the number format it was asked for in."""
        if destination.is_main:
            weights = destination.weights
            if model.plan.compute_dtype is not None:
                asked = getattr(torch, model.plan.compute_dtype)
                model.network.to(asked)
                weights = None if weights is None else _cast(weights, asked)
            model.save(destination.folder, destination.chat_template, weights)

    def attach(self, model: CausalModel, folder: Path) -> None:
        """Refuse: full fine-tuning makes no adapters."""
        raise ModelError("full fine-tuning makes whole models, not adapters: use --model with the folder")

    def base_reference(self, folder: Path) -> str | None:
        """Return nothing: a whole model has no base."""
        return None

    def base_plan(self, folder: Path, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the model that an adapter is put on."""
        return plan


def freeze_other_parts(model: CausalModel) -> None:
    """Let parts of a loaded model that are not to train stay as they are."""
    for name, parameter in model.base.named_parameters():
        if not model.trains(name):
            parameter.requires_grad_(False)


def _cast(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights in a number format; those that are one tensor stay one."""
    found = {id(weight): weight.to(dtype) if weight.is_floating_point() else weight for weight in weights.values()}
    return {name: found[id(weight)] for name, weight in weights.items()}


def _quantised(model: CausalModel, how: str) -> ModelError:
    return ModelError(
        f"{model.reference} has quantised weights ({how}), which cannot train: --tuner qlora trains adapters on such"
    )


def with_master_weights(plan: LoadPlan) -> LoadPlan:
    """Return a plan whose weights are float32, computed with in the format that was asked for (arXiv:1710.03740).

    A small update is lost on a weight of half precision. A processor computes in bfloat16 alone.
    """
    device = pick_device(plan.device)
    asked = str(pick_dtype(plan.dtype, device)).removeprefix("torch.")
    if asked == "bfloat16" or (asked == "float16" and device.type == "cuda"):
        return dataclasses.replace(plan, dtype="float32", compute_dtype=asked)
    return plan
