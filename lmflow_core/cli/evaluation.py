"""``lmflow evaluate``."""

from __future__ import annotations

import dataclasses
from typing import Any

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import EVALUATE
from lmflow_core.contracts.settings import EvaluationSettings
from lmflow_core.files.output import write_json
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.report.plots import draw_grid


def _run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.evaluate import evaluate as work

    if "benchmark" in request.components:
        _benchmark(request, catalogue, arguments)
        return
    result = dataclasses.asdict(work(request, catalogue))
    file = request.get(EvaluationSettings).output_file
    if file is not None:
        write_json(file, result)
    if "json" in arguments.switches:
        print_json(result)
    else:
        console.show(console.pairs(result.items()))


def _benchmark(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.evaluate import run_benchmark

    report = run_benchmark(request, catalogue)
    grid = report.grid
    result: dict[str, Any] = {"benchmark": request.components["benchmark"].name, "metrics": dict(report.metrics)}
    if grid is not None:
        result["grid"] = dataclasses.asdict(grid)
    file = request.get(EvaluationSettings).output_file
    if file is not None:
        write_json(file, result)
        if grid is not None:
            draw_grid(grid, file.with_suffix(".png"))
    if "json" in arguments.switches:
        print_json(result)
        return
    if grid is not None:
        rows = (
            (name, *(f"{value:.0%}" for value in values)) for name, values in zip(grid.rows, grid.values, strict=True)
        )
        console.show(console.table((f"{grid.row_label} / {grid.column_label}", *grid.columns), rows))
    console.show(console.pairs((name, f"{value:.4f}") for name, value in report.metrics.items()))


evaluate = SchemaCommand(EVALUATE, _run, summary="Measure the likelihood of data under a model, or run a benchmark.")
