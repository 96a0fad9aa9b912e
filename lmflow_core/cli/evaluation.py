"""``lmflow evaluate``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import EVALUATE
from lmflow_core.contracts.answering import AnsweringSettings
from lmflow_core.contracts.estimates import Estimate
from lmflow_core.contracts.settings import ComparisonSettings, EvaluationSettings
from lmflow_core.files.atomic import atomic_text
from lmflow_core.files.output import write_json
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.report.plots import draw_grid
from lmflow_core.workflows.answer_figures import AnswerReport


def _run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    if ComparisonSettings in request.settings:
        from lmflow_core.cli.comparing import show_comparison

        show_comparison(request, arguments)
        return
    from lmflow_core.workflows.evaluate import evaluate as work

    if "reward" in request.weighted:
        _answers(request, catalogue, arguments)
        return
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
    settings = request.get(EvaluationSettings)
    if settings.samples_file is not None:
        _write_samples(settings.samples_file, report.samples)
    file = settings.output_file
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


def _write_samples(file: Path, samples: Sequence[Mapping[str, Any]]) -> None:
    if not samples:
        console.note(f"--samples-file {file}: the benchmark tells no single questions, so it is empty")
    with atomic_text(file) as stream:
        stream.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def _answers(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    from lmflow_core.workflows.evaluate_answers import evaluate_answers

    report = evaluate_answers(request, catalogue)
    result = dataclasses.asdict(report)
    file = request.get(AnsweringSettings).output_file
    if file is not None:
        write_json(file, result)
    if "json" in arguments.switches:
        print_json(result)
        return
    console.show(console.table(("", "mean", "95 % interval"), _rows(report)))
    counts = {"prompts": report.prompts, "answers": report.answers}
    counts |= {"prompts too long": report.too_long, "answers without a reward": report.unscored}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in ("prompts", "answers"))
    console.show(f"\n{told}; intervals take the answers to a prompt for one cluster")
    if report.kl_is_unbiased is False:
        console.note(
            "this is no estimate of the KL divergence, as the answers are no samples of the model's own distribution: "
            "add --temperature 1 and leave out what changes it"
        )


def _rows(report: AnswerReport) -> Iterator[tuple[str, str, str]]:
    yield "reward", *_shown(report.reward)
    if len(report.rewards) > 1:
        yield from ((f"reward {name}", *_shown(found)) for name, found in report.rewards.items())
    if report.at_least is not None:
        yield f"worth {report.at_least:g} or more", *_shown(report.share_at_least)
    yield "tokens", *_shown(report.tokens)
    yield "cut off", *_shown(report.cut_off)
    if report.distinct_answers is not None:
        yield "distinct answers", *_shown(report.distinct_answers)
    for name, share in (("distinct-1", report.distinct_1), ("distinct-2", report.distinct_2)):
        yield name, "none" if share is None else f"{share:.4f}", ""
    if report.kl is not None:
        yield "KL, nats per answer", *_shown(report.kl)
        yield "KL, nats per token", *_shown(report.kl_per_token)


def _shown(found: Estimate | None) -> tuple[str, str]:
    if found is None:
        return "none", ""
    return f"{found.mean:.4f}", "" if found.low is None else f"{found.low:.4f} to {found.high:.4f}"


evaluate = SchemaCommand(
    EVALUATE,
    _run,
    summary="Measure the likelihood of data or what a model's answers are worth, run a benchmark, or compare runs.",
)
