"""Export: a model, with its adapter merged, into another form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lmflow_core.config.request import Request
from lmflow_core.contracts.exporter import Exporter, ExporterSpec, ExportReport
from lmflow_core.contracts.settings import ModelSettings, OutputSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.errors import ModelError, RequestError
from lmflow_core.files.exclusive import exclusive, lock_of_file
from lmflow_core.files.output import atomic_file, atomic_folder, check_output, check_output_file, name_beside
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.models.tasks import check_task
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.choosing import choose_template, jinja_for
from lmflow_core.workflows.model_card import CARD, CardFacts, hub_name, read_record, write_card
from lmflow_core.workflows.record import versions


@dataclass(frozen=True)
class Exported:
    """Where a model was written, a folder or a file, and what."""

    output: Path
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
    spec: ExporterSpec = request.components["format"].provided.spec
    is_file = spec.suffix is not None and output.output.suffix == spec.suffix and not output.output.is_dir()
    check = check_output_file if is_file else check_output
    check(output.output, overwrite=output.overwrite)
    with exclusive(lock_of_file(output.output) if is_file else output.output):
        check(output.output, overwrite=output.overwrite)
        return _export(request, catalogue, is_file=is_file, needs_adapter=needs_adapter)


def _export(request: Request, catalogue: Catalogue, *, is_file: bool, needs_adapter: bool) -> Exported:
    settings, spec = request.get(OutputSettings), request.components["format"].provided.spec
    output = settings.output
    scaling = request.components.get("position_scaling")
    opened = open_model(request.get(ModelSettings), catalogue, scaling=scaling, runtime=TORCH)
    if opened.adapter is None and (needs_adapter or spec.takes == "adapter"):
        raise ModelError(f"there is no adapter to {'merge' if needs_adapter else 'export'}: add --adapter FOLDER")
    check_task(opened.model, spec.tasks, f"--format {request.components['format'].name}")
    if is_file and opened.model.media is not None:
        for begin in spec.companions:
            check_output_file(output.with_name(begin + output.name), overwrite=settings.overwrite)
    exporter: Exporter = request.components["format"].make(catalogue)
    template = _chat_template(opened, catalogue)
    if _wants_weights(spec, opened, scaled=scaling is not None):
        opened.load()
    with atomic_file(output, spec.companions) if is_file else atomic_folder(output) as aside:
        report = exporter.export(opened.model, aside, template)
        if spec.library is not None and not is_file:
            size = write_card(aside, _facts(spec.library, opened, catalogue, chats=template is not None))
            report = replace(report, files=dict(sorted({**report.files, CARD: size}.items())))
    if is_file:
        names = {name: name_beside(output, name, spec.companions) for name in report.files}
        report = replace(report, files={names[name]: size for name, size in report.files.items()})
    return Exported(output, report)


def _facts(library: str, opened: OpenModel, catalogue: Catalogue, *, chats: bool) -> CardFacts:
    """Return what a card tells: of the training of the adapter that was merged or, without one, of the model itself."""
    model, record = opened.model, read_record(opened.adapter or opened.model.folder)
    base, name, made = model.reference, hub_name(opened), "merged" if opened.adapter else "exported"
    options, hub = record.get("options"), record.get("hub")
    trained_from = options.get("model") if isinstance(options, dict) else None
    if not opened.adapter and isinstance(trained_from, str):
        named = hub.get("model") if isinstance(hub, dict) else None
        base, name, made = trained_from, named if isinstance(named, str) else None, "finetuned"
    return CardFacts(base, name, model.plan.task, library, made, chats, record, versions(catalogue.plugins))


def _wants_weights(spec: ExporterSpec, opened: OpenModel, *, scaled: bool) -> bool:
    """Whether an exporter needs the weights in memory: one that takes files does where they are not as they will be."""
    if spec.takes == "files":
        return scaled or opened.adapter is not None or opened.model.folder is None
    return spec.takes == "weights"


def _chat_template(opened: OpenModel, catalogue: Catalogue) -> str | None:
    """Return the Jinja text of the model's template when LMFlow knows it; else the model keeps its own."""
    try:
        _, template = choose_template(None, opened, catalogue, needed=False)
    except RequestError:
        return None
    return jinja_for(template, opened.model) if template else None
