"""``lmflow export`` and ``lmflow merge``."""

from __future__ import annotations

import dataclasses

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import EXPORT
from lmflow_core.contracts.exporter import ExportReport
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.export import export as work


def _export(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    _write(request, catalogue, arguments, needs_adapter=False)


def _merge(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    _write(request, catalogue, arguments, needs_adapter=True)


def _write(request: Request, catalogue: Catalogue, arguments: Arguments, *, needs_adapter: bool) -> None:
    exported = work(request, catalogue, needs_adapter=needs_adapter)
    for note in exported.report.notes:
        console.note(note)
    if "json" in arguments.switches:
        print_json({"output": str(exported.output), **_as_json(exported.report)})
        return
    rows = [(name, f"{size:,}") for name, size in exported.report.files.items()]
    console.show(console.table(("FILE", "BYTES"), rows))
    if measured := exported.report.measured:
        console.show(
            "\n" + console.table([name.upper() for name in measured[0]], [list(row.values()) for row in measured])
        )
    console.note(f"written to {exported.output}")


def _as_json(report: ExportReport) -> dict[str, object]:
    measured = {"measured": [dict(row) for row in report.measured]} if report.measured else {}
    return {"files": dict(report.files), **measured}


export = SchemaCommand(EXPORT, _export, summary="Write a model in another form; its adapter is merged on the way.")
merge = SchemaCommand(
    dataclasses.replace(EXPORT, name="merge"),
    _merge,
    summary="Merge an adapter into its model and write the whole.",
)
