"""Metrics of a loss, added up over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lmflow_core.api import Curves, MetricPoint
from lmflow_transformers.training.loss import Mean

Gather = Callable[[object], list[Any]]
# What the trainer logs beside the loss and its metrics.
NOT_OURS = frozenset(("step", "epoch", "learning_rate", "grad_norm"))


class RunningMeans:
    """Means by name since they were last taken."""

    def __init__(self, all_gather: Gather) -> None:
        """Begin with none; ``all_gather`` gives what every process passed to it."""
        self._all_gather = all_gather
        self._means: dict[str, Mean] = {}

    def add(self, means: Mapping[str, Mean]) -> None:
        """Add those of one batch."""
        for name, mean in means.items():
            before = self._means.get(name, Mean(mean.total.new_zeros(()), 0))
            self._means[name] = Mean(before.total + mean.total, before.count + mean.count)

    def take(self) -> dict[str, float]:
        """Return the mean of each over all processes, and begin anew. All processes call this."""
        mine = {name: (float(mean.total), float(mean.count)) for name, mean in self._means.items()}
        self._means = {}
        return summed_means(self._all_gather(mine))


def summed_means(parts: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Return the mean of each name, from the sums and counts of several processes; one that counts nothing is none."""
    sums: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    return {name: total / count for name, (total, count) in sorted(sums.items()) if count}


def curves(history: Sequence[Mapping[str, Any]]) -> tuple[Curves, Curves]:
    """Return the curves of training and of validation from the trainer's log of a run."""
    training = [entry for entry in history if "loss" in entry]
    validation = [
        {name.removeprefix("eval_"): value for name, value in entry.items()}
        for entry in history
        if "eval_loss" in entry
    ]
    return _curves(training), _curves(validation)


def _curves(entries: Sequence[Mapping[str, Any]]) -> Curves:
    names = dict.fromkeys(name for entry in entries for name in entry if name not in NOT_OURS)
    return {
        name: tuple(MetricPoint(entry["step"], entry[name]) for entry in entries if name in entry) for name in names
    }
