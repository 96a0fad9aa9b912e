"""Early stopping that goes on counting where the checkpoint left off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from transformers import EarlyStoppingCallback

from lmflow_transformers.training.checkpoints import STATE


def early_stopping(patience: int | None, checkpoint: Path | None) -> Iterator[EarlyStoppingCallback]:
    """Yield the callback, if there is to be one.

    Args:
        patience: measurements without a lower loss after which to stop; None is never.
        checkpoint: the one that training goes on from, if any. How many such measurements there were is in it.
    """
    if patience is None:
        return
    callback = EarlyStoppingCallback(patience)
    if checkpoint is not None:
        callback.early_stopping_patience_counter = _counted(checkpoint)
    yield callback


def _counted(checkpoint: Path) -> int:
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    kept = state.get("stateful_callbacks", {}).get(EarlyStoppingCallback.__name__, {})
    return int(kept.get("attributes", {}).get("early_stopping_patience_counter", 0))
