"""Export: a model, with its adapter merged, into another form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmflow_core.contracts import Exporter, ExportReport
from lmflow_core.errors import ModelError, RequestError
from lmflow_core.job import Request
from lmflow_core.opening import OpenModel, choose_template, open_model
from lmflow_core.output import check_output, written_aside
from lmflow_core.registry import Catalogue
from lmflow_core.settings import ModelSettings, OutputSettings


@dataclass(frozen=True)
class Exported:
    """Where a model was written, and what."""

    folder: Path
    report: ExportReport


def export(request: Request, catalogue: Catalogue, *, needs_adapter: bool = False) -> Exported:
    """Write a model in the chosen form.

    Args:
        request: the checked request.
        catalogue: the components there are.
        needs_adapter: refuse a model without an adapter, for a command that merges.

    Raises:
        LmflowError: the model cannot be opened or written; nothing half-written is left.
    """
    output = request.get(OutputSettings)
    check_output(output.output, overwrite=output.overwrite)
    opened = open_model(request.get(ModelSettings), catalogue, request.components.get("position_scaling"))
    if needs_adapter and opened.adapter is None:
        raise ModelError("there is no adapter to merge: add --adapter FOLDER")
    exporter: Exporter = request.components["format"].make(catalogue)
    template = _chat_template(opened, catalogue)
    opened.load()
    with written_aside(output.output) as aside:
        report = exporter.export(opened.model, aside, template)
    return Exported(output.output, report)


def _chat_template(opened: OpenModel, catalogue: Catalogue) -> str | None:
    """Return the Jinja text of the model's template when LMFlow knows it; else the model keeps its own."""
    try:
        _, template = choose_template(None, opened, catalogue, needed=False)
    except RequestError:
        return None
    return template.to_jinja() if template else None
