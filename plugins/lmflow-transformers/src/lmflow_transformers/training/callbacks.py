"""Callbacks of tuners, told where the Hugging Face trainer stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lmflow_core.api import EncodedDataset, TrainingCallback, TrainingState


class AtStart(TrainerCallback):
    """Calls a function when training begins."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Call it."""
        self._action()


class TunerCallbacks(TrainerCallback):
    """Passes the trainer's events on.

    Args:
        callbacks: what the tuner adds to the run.
        optimizer: gives the optimizer, which is made when training starts.
        data: what is trained on.
        checkpoint: the folder that the run was resumed from, or None.
    """

    def __init__(
        self,
        callbacks: Sequence[TrainingCallback],
        optimizer: Callable[[], Any],
        data: EncodedDataset,
        checkpoint: Path | None,
    ) -> None:
        self._callbacks = callbacks
        self._optimizer = optimizer
        self._data = data
        self._checkpoint = checkpoint

    def _state(self, step: int) -> TrainingState:
        return TrainingState(step, self._optimizer(), self._data, self._checkpoint)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of the start."""
        for callback in self._callbacks:
            callback.on_start(self._state(state.global_step))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of a step."""
        for callback in self._callbacks:
            callback.on_step(self._state(state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of the end."""
        for callback in self._callbacks:
            callback.on_end(self._state(state.global_step))

    def save(self, checkpoint: Path) -> None:
        """Let each put state of its own into a checkpoint."""
        for callback in self._callbacks:
            callback.save(checkpoint)
