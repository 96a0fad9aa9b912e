"""Modules that train as they are beside adapters, which peft saves whole: a head, a projector."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

# In the names of their parameters.
WHOLE = "modules_to_save"


def train_in_float32(network: PeftModel) -> None:
    """Let them train in float32, as adapters do, within a network of any number format.

    They take and give what the network's other modules do.
    """
    for module in network.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for copy in module.modules_to_save.values():
                _train_in_float32(copy)


def _train_in_float32(module: torch.nn.Module) -> None:
    around = {parameter.dtype for parameter in module.parameters()} - {torch.float32}
    module.float()
    if len(around) == 1:
        (dtype,) = around
        module.register_forward_pre_hook(lambda _, given: _cast(given, torch.float32))
        module.register_forward_hook(lambda _, __, found: _cast(found, dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return type(value)(_cast(each, dtype) for each in value) if isinstance(value, (tuple, list)) else value
