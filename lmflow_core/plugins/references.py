"""From what a user types after ``--model`` to the spec that opens it."""

from __future__ import annotations

import json
from pathlib import Path

from lmflow_core.contracts.model import ModelSpec
from lmflow_core.errors import ModelError, RequestError
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement


def find_model(
    reference: str, catalogue: Catalogue, runtime: str | None = None, needed_by: str = "this command"
) -> Provided[ModelSpec]:
    """Return the spec that opens a reference: by its own name, else by the form of the reference.

    Of several that open a form, one that names the model's type goes before those that name none, and one that runs it
    as it is before one that converts it.

    Raises:
        ModelError: the reference is no registered name, folder, file or hub name.
        UnknownNameError: it names a model of a plugin that is not there.
        RequestError: what opens it does not run in ``runtime``; None takes any runtime.
    """
    exists = Path(reference).expanduser().exists()
    if reference in catalogue.of(ModelSpec) or (":" in reference and not exists):
        fitting, form = [catalogue.of(ModelSpec).find(reference)], ""
    else:
        form = _form(reference, catalogue)
        fitting = [provided for provided in catalogue.of(ModelSpec) if form in provided.spec.references]
        fitting = _of_type(_model_type(reference, form), fitting)
    if not fitting:
        raise ModelError(f"no plugin opens {reference!r} (a {form} reference); see 'lmflow plugins --kind model'")
    if runtime is not None:
        fitting = _of_runtime(runtime, fitting, reference, needed_by)
    if len(fitting) > 1:
        fitting = _native(form, fitting)
    if len(fitting) == 1:
        return fitting[0]
    names = " or ".join(f"{p.qualified}" for p in fitting)
    others = " ".join(f"--no-plugin {p.plugin.name}" for p in fitting[1:])
    raise ModelError(f"{reference!r} can be opened by {names}; leave all but one out ({others})")


def _model_type(reference: str, form: str) -> str | None:
    """Return the type that the configuration of a model's folder tells; None where there is none to be read."""
    if form != "folder":
        return None
    try:
        config = json.loads((Path(reference).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # the loader tells what is wrong with it
    told = config.get("model_type") if isinstance(config, dict) else None
    return told if isinstance(told, str) else None


def _of_type(model_type: str | None, fitting: list[Provided[ModelSpec]]) -> list[Provided[ModelSpec]]:
    """Return those that name a type of models; where there are none, those that name no types."""
    naming = [provided for provided in fitting if model_type in provided.spec.model_types]
    return naming or [provided for provided in fitting if not provided.spec.model_types]


def _of_runtime(
    runtime: str, fitting: list[Provided[ModelSpec]], reference: str, needed_by: str
) -> list[Provided[ModelSpec]]:
    kept = [provided for provided in fitting if provided.spec.runtime == runtime]
    if not kept:
        found = ", ".join(sorted({provided.spec.runtime for provided in fitting}))
        raise RequestError(f"{needed_by} needs a model that runs in {runtime}; {reference!r} runs in {found}")
    return kept


def _native(form: str, fitting: list[Provided[ModelSpec]]) -> list[Provided[ModelSpec]]:
    """Return those that run a form as it is and have what they need; where there are none, the others."""
    native = [provided for provided in fitting if form in provided.spec.native]
    ready = [provided for provided in native if missing_requirement(provided.spec) is None]
    return ready or [provided for provided in fitting if provided not in native] or fitting


def _form(reference: str, catalogue: Catalogue) -> str:
    path = Path(reference).expanduser()
    if path.is_dir():
        return "folder"
    if path.suffix == ".gguf":
        if path.is_file():
            return "gguf"
        raise ModelError(f"no such file: {reference}")
    if path.is_file():
        raise ModelError(f"{reference} is a file; a model is a folder or a .gguf file")
    if path.is_absolute() or reference.startswith((".", "~")) or reference.count("/") > 1:
        raise ModelError(f"no such folder: {reference}")
    if "/" in reference:
        return "hub"
    catalogue.of(ModelSpec).find(reference)  # explains by cause why the name is unknown
    raise AssertionError("find() raises for a name that is not registered")
