"""Ctrl-C ends a run at the next step, with a checkpoint; a second one ends it at once.

The processes of a job stop together, whichever of them the signal came to: each would wait for the others' gradients.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import torch
from transformers import TrainerCallback


class StopOnSignal(TrainerCallback):
    """Asks the trainer to save and stop when the process is interrupted or told to terminate.

    ``stopped`` says whether it ended a run before its end. What comes later than the last step changes nothing: the
    result is as good as there.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._came = False
        self._previous: dict[int, Any] = {}
        self._group: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over the signals; only the main thread may."""
        if args.world_size > 1:
            # A group of processors' own: over the one of a GPU every step would wait for the GPU.
            self._group = torch.distributed.new_group(backend="gloo")
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        except ValueError:
            self._previous.clear()

    def _on_signal(self, number: int, frame: Any) -> None:
        self._came = True
        self.give_back()
        print("lmflow: stopping after this step, with a checkpoint; once more stops at once", file=sys.stderr)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop if a signal came, to this process or another of the job."""
        if self._came_to_any() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def _came_to_any(self) -> bool:
        if self._group is None:
            return self._came
        # A signal that comes while the others are waited for is heard at the next step.
        came = torch.tensor(int(self._came))
        torch.distributed.all_reduce(came, torch.distributed.ReduceOp.MAX, group=self._group)
        return bool(came)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Neither measure nor save again in an epoch that was broken off: a run without a stop would not."""
        if self.stopped:
            control.should_evaluate = False
            control.should_save = False

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give the signals back."""
        self.give_back()

    def give_back(self) -> None:
        """Restore what the signals did before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
