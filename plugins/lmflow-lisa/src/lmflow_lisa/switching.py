"""Switching layers during training, and keeping optimizer state for what is active only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback

from lmflow_lisa.layers import draw
from lmflow_lisa.options import LisaOptions

_OFFLOADED = "lisa_offloaded.safetensors"


class LayerSwitch(TrainerCallback):
    """Freezes and thaws layers at the steps where a new draw is due.

    The optimizer knows every parameter; a frozen one has no gradient, so it is skipped and has no state. When a layer
    is frozen again its state is dropped, or offloaded to main memory until it is drawn again.
    """

    def __init__(
        self, layers: nn.ModuleList, optimizer: torch.optim.Optimizer, options: LisaOptions, seed: int
    ) -> None:
        self._layers = layers
        self._optimizer = optimizer
        self._options = options
        self._seed = seed
        self._offloaded: dict[int, dict[str, torch.Tensor]] = {}
        self._numbers = {id(p): n for n, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
        self.active: tuple[int, ...] = ()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Thaw the layers of the step that training starts or goes on at."""
        if state.global_step:
            self._load_offloaded(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._activate(self._drawn(state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw anew where a draw is due."""
        if state.global_step % self._options.lisa_interval_steps == 0:
            self._activate(self._drawn(state.global_step))

    def save_into(self, checkpoint: Path) -> None:
        """Put offloaded state into a checkpoint; active state is in the optimizer's own."""
        if self._offloaded:
            flat = {f"{n}.{key}": tensor for n, kept in self._offloaded.items() for key, tensor in kept.items()}
            save_file(flat, checkpoint / _OFFLOADED)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let go of all state."""
        self._offloaded.clear()

    def _drawn(self, step: int) -> tuple[int, ...]:
        options = self._options
        switch = step // options.lisa_interval_steps
        return draw(self._seed, switch, options.lisa_activated_layers, len(self._layers), options.lisa_layer_weights)

    def _activate(self, drawn: tuple[int, ...]) -> None:
        for number, layer in enumerate(self._layers):
            for parameter in layer.parameters():
                if number in drawn:
                    self._thaw(parameter)
                else:
                    self._freeze(parameter)
        self.active = drawn

    def _freeze(self, parameter: nn.Parameter) -> None:
        parameter.requires_grad_(False)
        parameter.grad = None
        kept = self._optimizer.state.pop(parameter, None)
        if kept and self._options.lisa_inactive_state == "offload":
            self._offloaded[self._numbers[id(parameter)]] = {key: value.cpu() for key, value in kept.items()}

    def _thaw(self, parameter: nn.Parameter) -> None:
        parameter.requires_grad_(True)
        kept = self._offloaded.pop(self._numbers[id(parameter)], None)
        if kept is not None:
            self._optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in kept.items()
            }

    def _load_offloaded(self, checkpoint: Path) -> None:
        path = checkpoint / _OFFLOADED
        for name, tensor in (load_file(path) if path.is_file() else {}).items():
            number, _, key = name.partition(".")
            self._offloaded.setdefault(int(number), {})[key] = tensor
