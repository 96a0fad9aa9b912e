"""``lmflow evaluate --compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.contracts.settings import ComparisonSettings
from lmflow_core.files.output import write_json
from lmflow_core.report import console
from lmflow_core.report.plots import draw_comparison
from lmflow_core.workflows.compare import ComparedRuns, compare

_HEADER = ("task", "score", "run", "questions", "first", "this", "difference", "95 % interval", "p")


def show_comparison(request: Request, arguments: Arguments) -> None:
    """Compare runs; show the result, write it and draw it, as a request says."""
    settings = request.get(ComparisonSettings)
    compared = compare(settings.compare)
    result = dataclasses.asdict(compared)
    if settings.output_file is not None:
        write_json(settings.output_file, result)
        draw_comparison(compared.bars(), settings.output_file.with_suffix(".png"))
    if "json" in arguments.switches:
        print_json(result)
    else:
        console.show(f"compared with {compared.runs[0]}\n")
        console.show(console.table(_HEADER, _rows(compared)))
    if compared.left_out:
        console.note(f"{compared.left_out} questions are left out, as only one of two runs was asked them")


def _rows(compared: ComparedRuns) -> Iterator[tuple[str, ...]]:
    for one in compared.comparisons:
        difference = one.difference
        reach = "" if difference.low is None else f"{difference.low:+.4f} to {difference.high:+.4f}"
        means = f"{one.first.mean:.4f}", f"{one.other.mean:.4f}", f"{difference.mean:+.4f}"
        yield one.task, one.score, one.run, str(one.questions), *means, reach, f"{one.p:.4f}"
