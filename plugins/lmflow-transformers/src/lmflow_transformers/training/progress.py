"""The progress bar of a training run: loss, real tokens per second, memory, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.training.metrics import NOT_OURS


class Progress(TrainerCallback):
    """Draws a bar on a terminal, and elsewhere a line per point of the loss curve.

    ``tokens`` are those of this process, counted by the trainer, and ``seconds`` the time they took. A run that was
    resumed has ``earlier_tokens``, those of all processes, and ``earlier_seconds`` before that.
    """

    def __init__(self) -> None:
        self.tokens = self.earlier_tokens = 0
        self.seconds = self.earlier_seconds = 0.0
        self._started = 0.0
        self._bar: Any = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar."""
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="Training",
            unit="step",
            file=sys.stderr,
            disable=not (state.is_world_process_zero and sys.stderr.isatty()),
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self.seconds = time.perf_counter() - self._started
        self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Any = None,
        **_: Any,
    ) -> None:
        """Show the newest figures."""
        if not state.is_world_process_zero or not logs:
            return
        if not {"loss", "eval_loss"} & logs.keys():
            return
        figures = {name: f"{value:.4f}" for name, value in logs.items() if name not in NOT_OURS}
        figures["tokens/s"] = f"{self.tokens * args.world_size / max(time.perf_counter() - self._started, 1e-9):.0f}"
        figures["memory"] = f"{peak_memory_bytes() / 1e9:.2f} GB"
        if self._bar.disable:
            shown = "  ".join(f"{name} {value}" for name, value in figures.items())
            print(f"step {state.global_step}/{state.max_steps}  {shown}", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix(figures)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop the clock and close the bar."""
        self.seconds = time.perf_counter() - self._started
        self._bar.close()
