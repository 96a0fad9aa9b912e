"""Trackers of a run, by name: tensorboard, wandb, mlflow and what else transformers reports to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from lmflow_core.api import LmflowError, RequestError, how_to_install

FOLDER = "trackers"
# Transformers never counts flyte as available.
_KNOWN = tuple(name for name in INTEGRATION_TO_CALLBACK if name != "flyte")
_DISTRIBUTIONS = {"azure_ml": "azureml-core"}
_NEEDS = {
    "comet_ml": "not ready: pip install comet-ml, and set COMET_API_KEY",
    "dagshub": "not installed: pip install dagshub mlflow",
    "kubeflow": "not ready: only in a job of Kubeflow, which sets KUBEFLOW_TRAINER_SERVER_URL, can it be used",
}


def prepare_trackers(names: Sequence[str], output: Path) -> None:
    """Check that trackers are there, and let those that write files do so in the run's own folder.

    A place that the user's environment names stays as it is.

    Raises:
        RequestError: a tracker is unknown or not installed.
    """
    for name in names:
        if name not in _KNOWN:
            raise RequestError(f"unknown tracker {name!r} in --report-to; known: {', '.join(_KNOWN)}")
        if name not in get_available_reporting_integrations():
            raise RequestError(f"the tracker {name} is {_NEEDS.get(name) or _not_installed(name)}")
    places = {
        "tensorboard": ("TENSORBOARD_LOGGING_DIR", str(output / FOLDER / "tensorboard")),
        "wandb": ("WANDB_DIR", str(output / FOLDER)),
        "mlflow": ("MLFLOW_TRACKING_URI", f"sqlite:///{(output / FOLDER / 'mlflow.db').absolute()}"),
    }
    for name in names:
        if name in places:
            os.environ.setdefault(*places[name])
    if names:
        (output / FOLDER).mkdir(parents=True, exist_ok=True)


def _not_installed(name: str) -> str:
    return f"not installed: {how_to_install(_DISTRIBUTIONS.get(name, name))}"


def explain_failed_start(callback: Any, output: Path) -> None:
    """Let a tracker that cannot start, for want of a key or a server, say so in one message and leave no folder."""
    names = [name for name, kind in INTEGRATION_TO_CALLBACK.items() if type(callback) is kind]
    if not names or not hasattr(callback, "setup"):
        return
    setup = callback.setup

    def explained(*arguments: Any, **others: Any) -> None:
        try:
            setup(*arguments, **others)
        except Exception as error:  # each tracker has errors of its own
            with suppress(OSError):
                (output / FOLDER).rmdir()
            reason = " ".join(str(error).split())
            raise LmflowError(f"the tracker {names[0]} cannot start: {reason}") from error

    callback.setup = explained
