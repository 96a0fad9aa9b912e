"""Switching layers during training, and keeping optimizer state for what is active only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lmflow_core.api import TrainingCallback, TrainingState
from lmflow_lisa.layers import sample_layers
from lmflow_lisa.options import LisaOptions

_OFFLOADED = "lisa_offloaded.safetensors"


class LayerSwitch(TrainingCallback):
    """Freezes and thaws layers at the steps where a new sample is due.

    The optimizer knows every parameter; a frozen one has no gradient, so it is skipped and has no state. When a layer
    is frozen again its state is dropped, or offloaded to main memory until it is sampled again.
    """

    def __init__(self, layers: nn.ModuleList, options: LisaOptions, seed: int) -> None:
        self._layers = layers
        self._options = options
        self._seed = seed
        self._offloaded: dict[int, dict[str, Any]] = {}
        self.active: tuple[int, ...] = ()

    def on_start(self, state: TrainingState) -> None:
        """Thaw the layers of the step that training starts or goes on at."""
        groups = state.optimizer.param_groups
        self._optimizer_state = state.optimizer.state
        self._numbers = {id(p): n for n, p in enumerate(p for group in groups for p in group["params"])}
        if state.checkpoint is not None:
            self._load_offloaded(state.checkpoint)
        self._activate(self._sampled(state.step))

    def on_step(self, state: TrainingState) -> None:
        """Sample anew where that is due."""
        if state.step % self._options.lisa_interval_steps == 0:
            self._activate(self._sampled(state.step))

    def save(self, checkpoint: Path) -> None:
        """Put offloaded state into a checkpoint; active state is in the optimizer's own."""
        flat = {f"{n}.{key}": value for n, kept in self._offloaded.items() for key, value in kept.items()}
        tensors = _unshared({name: value for name, value in flat.items() if isinstance(value, torch.Tensor)})
        numbers = {name: value for name, value in flat.items() if name not in tensors}
        if flat:
            save_file(tensors, checkpoint / _OFFLOADED, {"numbers": json.dumps(numbers)})

    def on_end(self, state: TrainingState) -> None:
        """Let go of all state."""
        self._offloaded.clear()

    def _sampled(self, step: int) -> tuple[int, ...]:
        options = self._options
        number = step // options.lisa_interval_steps
        count = options.lisa_activated_layers
        return sample_layers(self._seed, number, count, len(self._layers), options.lisa_layer_weights)

    def _activate(self, sampled: tuple[int, ...]) -> None:
        for number, layer in enumerate(self._layers):
            for parameter in layer.parameters():
                if number in sampled:
                    self._thaw(parameter)
                else:
                    self._freeze(parameter)
        self.active = sampled

    def _freeze(self, parameter: nn.Parameter) -> None:
        parameter.requires_grad_(False)
        parameter.grad = None
        kept = self._optimizer_state.pop(parameter, None)
        if kept and self._options.lisa_inactive_state == "offload":
            self._offloaded[self._numbers[id(parameter)]] = _moved(kept, torch.device("cpu"))

    def _thaw(self, parameter: nn.Parameter) -> None:
        parameter.requires_grad_(True)
        # An engine that keeps state in rows knows no single parameter, and drops what is frozen itself.
        kept = self._offloaded.pop(self._numbers.get(id(parameter), -1), None)
        if kept is not None:
            self._optimizer_state[parameter] = _moved(kept, parameter.device)

    def _load_offloaded(self, checkpoint: Path) -> None:
        path = checkpoint / _OFFLOADED
        if not path.is_file():
            return
        with safe_open(path, "pt") as file:
            numbers = json.loads(file.metadata()["numbers"])
        for name, value in {**load_file(path), **numbers}.items():
            number, _, key = name.partition(".")
            self._offloaded.setdefault(int(number), {})[key] = value


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as a file holds them: none is another as well, as bitsandbytes' tables are, or has gaps."""
    seen: set[int] = set()
    own: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        own[name] = (
            value.clone(memory_format=torch.contiguous_format) if value.data_ptr() in seen else value.contiguous()
        )
        seen.add(value.data_ptr())
    return own


def _moved(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the state of a parameter with its tensors on a device; some optimizers count steps in a plain number."""
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in state.items()}
