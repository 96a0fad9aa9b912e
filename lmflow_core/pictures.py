"""Pictures that lie beside results. They need matplotlib and are left out, with a note, where it is missing."""

from __future__ import annotations

from pathlib import Path

from lmflow_core import console
from lmflow_core.contracts import TrainingReport


def draw_losses(report: TrainingReport, path: Path) -> None:
    """Draw the loss curve of a run into a PNG file."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        console.note(f"no {path.name}: pip install matplotlib to have the loss drawn")
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([p.step for p in report.losses], [p.loss for p in report.losses], label="training")
    if report.held_out_losses:
        points = report.held_out_losses
        axes.plot([p.step for p in points], [p.loss for p in points], marker="o", label="held out")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
