"""Modules that train as they are beside adapters, which peft saves whole: a head, a projector."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_lora.library import peft

# In the names of their parameters.
WHOLE = "modules_to_save"


def train_in_float32(network: peft.PeftModel, *, within: bool) -> None:
    """Let them train in float32, as adapters do, in a network of any number format.

    Args:
        network: that holds them.
        within: they stand within the network, and take and give what its other modules do; a head for a number is
            given its own format, and what it gives is not rounded.
    """
    for module in network.modules():
        if isinstance(module, peft.utils.ModulesToSaveWrapper):
            for copy in module.modules_to_save.values():
                around = {parameter.dtype for parameter in copy.parameters()} - {torch.float32}
                copy.float()
                if within and len(around) == 1:
                    _take_and_give(copy, *around)


def _take_and_give(module: torch.nn.Module, dtype: torch.dtype) -> None:
    module.register_forward_pre_hook(lambda _, given: _cast(given, torch.float32))
    module.register_forward_hook(lambda _, __, found: _cast(found, dtype))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    return type(value)(_cast(each, dtype) for each in value) if isinstance(value, (tuple, list)) else value
