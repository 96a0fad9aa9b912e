"""Pictures that lie beside results. They need matplotlib and are left out, with a note, where it is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmflow_core.contracts.benchmark import Grid
from lmflow_core.contracts.estimates import Estimate
from lmflow_core.contracts.objective import MetricPoint, TrainingReport
from lmflow_core.installing import how_to_install
from lmflow_core.report import console


def draw_training(report: TrainingReport, path: Path) -> None:
    """Draw the loss curve of a run, and below it those of its metrics, into a PNG file."""
    names = ["loss", *(name for name in report.training if name != "loss")]
    figure = _figure(path, height=1.0 + 3.0 * len(names))
    if figure is None:
        return
    for number, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, number + 1)
        _draw_curve(axes, report.training.get(name, ()), "training")
        _draw_curve(axes, report.validation.get(name, ()), "validation", marker="o")
        axes.set(xlabel="step", ylabel=f"loss (mean over {report.unit})" if name == "loss" else name)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path)


def _draw_curve(axes: Any, points: Sequence[MetricPoint], label: str, marker: str | None = None) -> None:
    if points:
        axes.plot([point.step for point in points], [point.value for point in points], marker=marker, label=label)


def draw_grid(grid: Grid, path: Path) -> None:
    """Draw a grid of values between 0 and 1 into a PNG file, green where they are high."""
    figure = _figure(path)
    if figure is None:
        return
    axes = figure.add_subplot()
    image = axes.imshow(grid.values, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(grid.columns)), grid.columns)
    axes.set_yticks(range(len(grid.rows)), grid.rows)
    for row, values in enumerate(grid.values):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.0%}", ha="center", va="center")
    axes.set(title=grid.title, xlabel=grid.column_label, ylabel=grid.row_label)
    figure.colorbar(image)
    figure.savefig(path)


def draw_comparison(scores: Mapping[str, Mapping[str, Mapping[str, Estimate]]], path: Path) -> None:
    """Draw means of runs side by side into a PNG file, with their intervals: by score, then task, then run."""
    figure = _figure(path, height=1.0 + 3.0 * len(scores))
    if figure is None:
        return
    for number, (score, tasks) in enumerate(scores.items()):
        axes = figure.add_subplot(len(scores), 1, number + 1)
        runs = [*dict.fromkeys(run for means in tasks.values() for run in means)]
        for place, run in enumerate(runs):
            beside = 0.8 * ((place + 0.5) / len(runs) - 0.5)
            shown = [(at + beside, means[run]) for at, means in enumerate(tasks.values()) if run in means]
            _draw_bars(axes, shown, run, 0.8 / len(runs))
        axes.set_xticks(range(len(tasks)), [*tasks])
        axes.set(ylabel=score)
        axes.grid(axis="y", alpha=0.3)
        if number == 0:
            figure.legend(loc="outside upper left")
    figure.savefig(path)


def _draw_bars(axes: Any, shown: Sequence[tuple[float, Estimate]], label: str, width: float) -> None:
    reach = [0.0 if mean.high is None else mean.high - mean.mean for _, mean in shown]
    axes.bar([at for at, _ in shown], [mean.mean for _, mean in shown], width, yerr=reach, capsize=3, label=label)


def draw_lengths(histogram: Sequence[tuple[int, int]], limit: int | None, path: Path) -> None:
    """Draw how many examples have how many tokens into a PNG file, with the limit where one is in sight."""
    figure = _figure(path)
    if figure is None:
        return
    axes = figure.add_subplot()
    width = histogram[0][0]
    axes.bar([bound - width / 2 for bound, _ in histogram], [count for _, count in histogram], width=width * 0.95)
    if limit is not None and limit <= histogram[-1][0]:
        axes.axvline(limit, color="red", label=f"longest allowed: {limit}")
        axes.legend()
    axes.set(xlabel="tokens of an example", ylabel="examples")
    figure.savefig(path)


def _figure(path: Path, height: float = 4.0) -> Any:
    """Return an empty figure, or None, with a note, where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.note(f"no {path.name}: {how_to_install('matplotlib')} to have it drawn")
        return None
    return Figure(figsize=(7, height), layout="constrained")
