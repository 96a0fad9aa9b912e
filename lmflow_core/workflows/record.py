"""``run.json``: what a run was asked, with what it ran, and what came out, so that it can be trusted and repeated."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import lmflow_core
from lmflow_core.config.request import Request
from lmflow_core.contracts.objective import Curves, TrainingReport
from lmflow_core.plugins.record import PluginSet

SCHEMA = 1
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "bitsandbytes")


def versions(plugins: PluginSet) -> dict[str, Any]:
    """Return the versions that a result depends on, with the digest of the plugin set."""
    return {
        "python": platform.python_version(),
        "lmflow_core": lmflow_core.__version__,
        "plugins": {record.distribution: record.version for record in plugins.healthy()},
        "plugin_digest": plugins.digest(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def run_record(
    request: Request,
    plugins: PluginSet,
    template: str | None,
    data: Mapping[str, Any],
    report: TrainingReport,
) -> dict[str, Any]:
    """Return the content of a training run's ``run.json``."""
    return {
        "schema": SCHEMA,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": request.values(),
        "template": template,
        "versions": versions(plugins),
        "data": dict(data),
        "steps": report.steps,
        "tokens": report.tokens,
        "seconds": round(report.seconds, 3),
        "tokens_per_second": round(report.tokens_per_second, 2),
        "peak_memory_bytes": report.peak_memory_bytes,
        "loss_unit": report.unit,
        "losses": _points(report.training, "loss"),
        "validation_losses": _points(report.validation, "loss"),
        "curves": {"training": _others(report.training), "validation": _others(report.validation)},
        "metrics": {name: _number(value) for name, value in report.metrics.items()},
    }


def _points(curves: Curves, name: str) -> list[list[float | None]]:
    return [[point.step, _number(point.value)] for point in curves.get(name, ())]


def _number(value: float) -> float | None:
    """Return a number as JSON has it: what is none there is null."""
    return value if math.isfinite(value) else None


def _others(curves: Curves) -> dict[str, list[list[float | None]]]:
    """Return the curves of what the loss measures besides itself."""
    return {name: _points(curves, name) for name in curves if name != "loss"}
