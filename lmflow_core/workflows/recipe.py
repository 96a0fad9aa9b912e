"""What the result of a run depends on: the options that matter, models and data by content, plugins and libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.engine import World
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.recipe import Recipe
from lmflow_core.contracts.settings import DataSettings, OutputSettings, ResumeSettings, TrainingSettings
from lmflow_core.data.store import EncodedRows
from lmflow_core.files.fingerprint import model_fingerprint
from lmflow_core.options import fields_of
from lmflow_core.plugins.record import PluginSet
from lmflow_core.workflows.record import versions

# Where a result goes, what is told of it on the way, and when it is saved.
_FREE = {
    *(option.name for settings in (OutputSettings, ResumeSettings) for option in fields_of(settings)),
    *("logging_steps", "save_steps", "save_total_limit", "report_to", "run_name", "cache"),
}
_LENGTH = ("epochs", "max_steps", "early_stopping_patience")
# What a content stands for, which counts in their place: another path to the same data changes nothing.
_EXPLAINED = {
    "the model": ("model", "adapter", "revision"),
    "the data": tuple(option.name for option in fields_of(DataSettings) if option.name not in ("template", "cache")),
    "the validation data": ("eval_dataset",),
    "the device": ("device",),
}
_ELSEWHERE = {*_FREE, *_LENGTH, "eval_steps", *(name for names in _EXPLAINED.values() for name in names)}
# A plugin that offers nothing else takes no part in training.
_AFTER_TRAINING = {"command", "exporter", "benchmark"}


def recipe(
    request: Request,
    settings: TrainingSettings,
    plugins: PluginSet,
    models: Iterable[LanguageModel],
    data: EncodedRows,
    validation: EncodedRows | None,
    world: World,
) -> Recipe:
    """Return what the result of a run depends on.

    Args:
        request: what was asked.
        settings: those of the run, in which the learning rate is known.
        plugins: all there are.
        models: the one that is trained, then those it learns from.
        data: what is trained on.
        validation: what the best weights are chosen by, if anything.
        world: the processes of the job.
    """
    options = {**request.values(), "lr": settings.lr}
    trained, *others = models
    explained = {name: _flags(options, decisive) for name, decisive in _EXPLAINED.items()}
    fixed: dict[str, Any] = {"the model": _content(trained), "the data": data.fingerprint()}
    fixed |= {f"the model {model.reference}": _content(model) for model in others}
    if settings.load_best_model or settings.early_stopping_patience is not None:
        fixed["the validation data"] = None if validation is None else validation.fingerprint()
        fixed["--eval-steps"] = settings.eval_steps
    free = _ELSEWHERE | _without_effect(request)
    fixed |= _flags(options, [name for name in options if name not in free])
    fixed |= {"the number of processes": world.size, **_software(plugins, trained)}
    return Recipe(fixed, explained, _flags(options, _LENGTH))


def _without_effect(request: Request) -> set[str]:
    """Return the options of components that say of themselves that no result depends on them."""
    chosen = [component.options for component in request.components.values() if component.options is not None]
    return {field.name for options in chosen for field in fields_of(type(options)) if not field.affects_result}


def _flags(options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {"--" + name.replace("_", "-"): options[name] for name in names if name in options}


def _content(model: LanguageModel) -> str:
    """Return what tells the weights: a digest of their files, or the name of a model that has none here."""
    own = model.folder or Path(model.reference)
    told = model_fingerprint(own) if own.exists() else model.reference
    return told if model.adapter is None else f"{told}-{model_fingerprint(model.adapter)}"


def _software(plugins: PluginSet, trained: LanguageModel) -> dict[str, str]:
    """Return the versions of what computes; what takes no part in this training does not count."""
    known = versions(plugins)
    taking_part = {
        f"plugin {record.name}": record.version
        for record in plugins.healthy()
        if not {spec.kind for spec in record.specs} <= _AFTER_TRAINING
    }
    libraries = dict(known["libraries"])
    if trained.plan.quantization is None:
        libraries.pop("bitsandbytes", None)
    return {"lmflow_core": known["lmflow_core"], **taking_part, **libraries}
