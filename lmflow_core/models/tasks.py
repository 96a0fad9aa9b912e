"""What a model gives, and whether that is what a component works with."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.model import PREDICTING, LanguageModel
from lmflow_core.errors import RequestError

_GIVES = {"regression": "gives a number for a text", **dict.fromkeys(PREDICTING, "predicts tokens")}


def check_task(model: LanguageModel, tasks: Sequence[str], needed_by: str) -> None:
    """Check, before its weights are read, that a model gives what a component works with.

    Args:
        model: open, its load plan complete.
        tasks: those of load plans that would do.
        needed_by: what works with the model, for the message.

    Raises:
        RequestError: it gives something else.
    """
    task = model.plan.task
    if task not in tasks:
        wanted = " or ".join(dict.fromkeys(map(_gives, tasks)))
        raise RequestError(f"{model.reference} {_gives(task)}, and {needed_by} needs a model that {wanted}")


def _gives(task: str) -> str:
    return _GIVES.get(task, f"is loaded for the task {task!r}")


def check_predicts(model: LanguageModel, needed_by: str) -> None:
    """Check that a model predicts tokens; see :func:`check_task`."""
    check_task(model, PREDICTING, needed_by)
