"""What ends a run from outside, told in one message: memory that ran out, a disk that refuses, a loss that is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from lmflow_core.api import LmflowError, is_out_of_memory
from lmflow_transformers.sharding import own_part

_MEND_NAN = "lower --lr, raise --warmup-ratio, or use --dtype float32"


@contextmanager
def explained_failures(folder: Path) -> Iterator[None]:
    """Turn the errors of the machine into one message each. ``folder`` is where checkpoints go.

    Raises:
        LmflowError: memory ran out, or the folder cannot be used.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, torch.OutOfMemoryError) or is_out_of_memory(error)):
            raise
        raise LmflowError(
            "memory ran out: lower --batch-size, --max-length or, in a single process, --micro-batch-tokens, "
            "add --gradient-checkpointing, or train less with --tuner lora"
        ) from error
    except OSError as error:
        raise LmflowError(f"{error.filename or folder} cannot be used: {error.strerror or error}") from error


def check_finite(network: torch.nn.Module, step: int, all_gather: Callable[[object], list[Any]]) -> None:
    """Check that what was trained is numbers, before it is kept. All processes of a job call this.

    Args:
        network: what was trained; a process of a sharded job has a part of it.
        step: of the run, for the message.
        all_gather: gives what every process passed, so that all end where one finds a weight that is none.

    Raises:
        LmflowError: a weight is not.
    """
    parts = (own_part(weight) for weight in network.parameters() if weight.requires_grad)
    finite = all(bool(part.isfinite().all()) for part in parts)
    if not all(all_gather(finite)):
        raise LmflowError(f"the weights are no numbers any more at step {step}: {_MEND_NAN}")


class StopAtNan(TrainerCallback):
    """Ends a run whose loss is no longer a number."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Check the newest loss."""
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise LmflowError(f"the loss is {logs['loss']} at step {state.global_step}: {_MEND_NAN}")
