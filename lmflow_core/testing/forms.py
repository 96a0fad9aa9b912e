"""Models in the forms that ``--model`` takes, made of a folder."""

from __future__ import annotations

from pathlib import Path

from lmflow_core.contracts.exporter import Exporter, ExporterSpec
from lmflow_core.contracts.model import ModelSpec
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.models.opening import open_model
from lmflow_core.options import build
from lmflow_core.plugins.registry import Catalogue

# The tokenizer of the small models splits texts as GPT-2 does, and no list of known models has it.
_OPTIONS = {"type": ("F32",), "pre_tokenizer": "gpt-2"}


def made_in(form: str, folder: Path, catalogue: Catalogue, into: Path) -> Path | None:
    """Return a small model in a form of a ``ModelSpec``, with the same weights; None where nothing here makes it.

    Args:
        form: such as ``folder`` or ``gguf``.
        folder: with a small model of :mod:`lmflow_core.testing.tiny`.
        catalogue: the plugins there are.
        into: an empty folder for what is made.
    """
    if form == "folder":
        return folder
    exporters = catalogue.of(ExporterSpec)
    if form not in exporters:
        return None
    spec = exporters.find(form).spec
    options = build(spec.options, _OPTIONS) if spec.options else None
    opened = open_model(ModelSettings(model=str(folder), device="cpu"), catalogue).model
    if spec.takes == "weights":
        opened.load()
    exporter: Exporter = exporters.load(form)(options)
    (file,) = exporter.export(opened, into, None).files
    return into / file


def made_for(runtime: str, folder: Path, catalogue: Catalogue, into: Path) -> Path | None:
    """Return a small model in the first form that a runtime takes as it is; None where nothing here makes one."""
    forms = [form for p in catalogue.of(ModelSpec) if p.spec.runtime == runtime for form in p.spec.native]
    made = (made_in(form, folder, catalogue, into) for form in forms)
    return next((file for file in made if file is not None), None)
