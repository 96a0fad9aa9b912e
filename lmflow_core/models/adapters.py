"""Adapters: the model that one was made for, and the tuner that puts it on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.tuner import Tuner, TunerSpec
from lmflow_core.errors import ModelError
from lmflow_core.files.output import RUN_FILE
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue


def with_adapter(settings: ModelSettings, catalogue: Catalogue) -> tuple[ModelSettings, Path | None, Tuner | None]:
    """Return the settings of the model itself, the folder of its adapter, and the tuner that puts that on.

    The adapter is the one that is asked for, or what the folder holds that is given as the model. One that is a file is
    the model's own affair.

    Raises:
        ModelError: a folder holds no adapter, or does not tell of which model or tuner it is.
    """
    if settings.adapter is not None and settings.adapter.is_file():
        return settings, None, None
    if settings.adapter is not None:
        return settings, settings.adapter, _tuner_of(settings.adapter, catalogue)
    folder = Path(settings.model).expanduser()
    if not folder.is_dir() or not _owners(folder, catalogue):
        return settings, None, None
    tuner = _tuner_of(folder, catalogue)
    base = tuner.base_reference(folder)
    if base is None:
        raise ModelError(f"{folder} holds an adapter that does not tell its base model: add --adapter and --model")
    return replace(settings, model=base), folder, tuner


def adapter_options(folder: Path) -> dict[str, Any]:
    """Return the options of the run that made an adapter, or none where its folder does not tell them."""
    try:
        options = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return options if isinstance(options, dict) else {}


def _owners(folder: Path, catalogue: Catalogue) -> list[Provided[TunerSpec]]:
    known = catalogue.of(TunerSpec)
    return [p for p in known if p.spec.adapter_file and (folder / p.spec.adapter_file).is_file()]


def _tuner_of(folder: Path, catalogue: Catalogue) -> Tuner:
    owners = _owners(folder, catalogue)
    if not owners:
        marks = sorted({p.spec.adapter_file for p in catalogue.of(TunerSpec) if p.spec.adapter_file})
        raise ModelError(f"{folder} holds no adapter (looked for {', '.join(marks) or 'none: no plugin makes any'})")
    owner = owners[0] if len(owners) == 1 else _maker(folder, owners)
    options = owner.spec.options
    tuner: Tuner = catalogue.of(TunerSpec).load(owner.qualified)(options() if options else None)
    return tuner


def _maker(folder: Path, owners: Sequence[Provided[TunerSpec]]) -> Provided[TunerSpec]:
    """Return, of several tuners whose adapters have the same form, the one that made this adapter.

    Where that is not told, the first will do if all are of one plugin, which knows its own adapters.
    """
    made_by = adapter_options(folder).get("tuner")
    makers = [owner for owner in owners if made_by in (owner.qualified, owner.spec.name, *owner.spec.aliases)]
    if len(makers) == 1:
        return makers[0]
    first: dict[str, Provided[TunerSpec]] = {}
    for owner in owners:
        first.setdefault(owner.plugin.name, owner)
    if len(first) == 1:
        return owners[0]
    names = " or ".join(owner.qualified for owner in first.values())
    raise ModelError(
        f"the adapter in {folder} may be one of {names}, and its {RUN_FILE} does not tell which: leave all but one "
        "out with --no-plugin"
    )
