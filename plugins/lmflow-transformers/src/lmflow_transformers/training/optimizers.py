"""AdamW, and the groups of parameters that optimizers are given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from lmflow_core.api import LmflowError, ParameterGroup, RequestError, TrainingSettings
from lmflow_transformers.options import AdamWOptions


def parameter_groups(network: torch.nn.Module) -> list[ParameterGroup]:
    """Return every parameter that trains, in two groups: biases and norms, of one dimension, do not decay."""
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    groups = (
        ParameterGroup({name: p for name, p in trained if dimensions(p) > 1}),
        ParameterGroup({name: p for name, p in trained if dimensions(p) <= 1}, decays=False),
    )
    return [group for group in groups if group.parameters]


def dimensions(parameter: torch.nn.Parameter) -> int:
    """Return how many dimensions a parameter has; one that ZeRO has spread over processes is empty for itself."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def torch_groups(groups: Iterable[ParameterGroup], settings: TrainingSettings) -> list[dict[str, Any]]:
    """Return groups as torch's optimizers take them, each with its learning rate and its weight decay."""
    assert settings.lr is not None  # the tuner's own where the user gives none
    return [
        {
            "params": list(group.parameters.values()),
            "lr": settings.lr * group.lr_factor,
            "weight_decay": settings.weight_decay if group.decays else 0.0,
        }
        for group in groups
    ]


def check_optimizer(optimizer: object, groups: Sequence[ParameterGroup]) -> None:
    """Check what a plugin made of some groups.

    Raises:
        LmflowError: it is no optimizer of torch, or does not update exactly the parameters of the groups.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise LmflowError(f"the optimizer made is a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    asked = {id(parameter) for group in groups for parameter in group.parameters.values()}
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if asked != given:
        raise LmflowError(
            f"the optimizer {type(optimizer).__name__} updates {len(given & asked)} of {len(asked)} parameters that "
            f"train and {len(given - asked)} others: make it of torch_groups(groups, settings)"
        )


# Those of torch that treat each number alike.
_ELEMENTWISE = ("ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD")


def check_elementwise(optimizer: torch.optim.Optimizer, weights_differ: bool) -> None:
    """Check that an optimizer can work on a part of each weight, as ZeRO and FSDP give it.

    Args:
        optimizer: what was made.
        weights_differ: the weights that train are not those one uses.

    Raises:
        RequestError: it cannot, or does not say so by an attribute ``elementwise`` that is true.
    """
    own = {getattr(torch.optim, name) for name in _ELEMENTWISE}
    if not getattr(optimizer, "elementwise", type(optimizer) in own and not weights_differ):
        raise RequestError(
            f"the optimizer {type(optimizer).__name__} needs whole weights, and this engine gives it a part of "
            "each: take --optimizer adamw, --zero-stage 0 or --engine torchrun"
        )


class AdamW:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101), in PyTorch's fused kernel."""

    def __init__(self, options: AdamWOptions | None = None) -> None:
        self._options = options or AdamWOptions()

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(
            torch_groups(groups, settings),
            betas=(self._options.adam_beta1, self._options.adam_beta2),
            eps=self._options.adam_epsilon,
            fused=True,
        )

    def use_weights(self, optimizer: torch.optim.Optimizer, *, training: bool) -> None:
        """Do nothing: the weights that train are those one uses."""


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh AdamW its (zero) state before training instead of in its first step.

    In the first step it would settle in the gaps between activations, and the longer batches of later steps would
    no longer find room there: on two cores full training of 135 million parameters held 0.9 GB more.
    """
    if type(optimizer) is not torch.optim.AdamW or optimizer.state:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
