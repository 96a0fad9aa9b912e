"""Metrics of a loss, added up over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from lmflow_core.api import Curves, MetricPoint
from lmflow_transformers.training.loss import TRAINER_NAMES, VALIDATION_PREFIX, Mean

Gather = Callable[[object], list[Any]]
# What the trainer logs beside the loss and its metrics.
NOT_OURS = TRAINER_NAMES - {"loss"}


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

    def add_sums(self, sums: Mapping[str, Sequence[float]]) -> None:
        """Add sums and counts by name, as :meth:`sums` returned them."""
        self.add({name: Mean(*map(torch.tensor, both)) for name, both in sums.items()})

    def take(self) -> dict[str, float]:
        """Return the mean of each over all processes, and begin anew. All processes call this."""
        sums = self.sums()
        self._means = {}
        return {name: total / count for name, (total, count) in sums.items() if count}

    def sums(self) -> dict[str, tuple[float, float]]:
        """Return the sum and the count of each over all processes. All processes call this."""
        mine = {name: (float(mean.total), float(mean.count)) for name, mean in self._means.items()}
        return added(self._all_gather(mine))


def added(parts: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Return the sum and the count of each name, from those of several processes."""
    sums: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + total, before[1] + count)
    return dict(sorted(sums.items()))


def curves(history: Sequence[Mapping[str, Any]]) -> tuple[Curves, Curves]:
    """Return the curves of training and of validation from the trainer's log of a run."""
    training = [entry for entry in history if "loss" in entry]
    validation = [
        {name.removeprefix(VALIDATION_PREFIX): value for name, value in entry.items()}
        for entry in history
        if "eval_loss" in entry
    ]
    return _curves(training), _curves(validation)


def _curves(entries: Sequence[Mapping[str, Any]]) -> Curves:
    names = dict.fromkeys(name for entry in entries for name in entry if name not in NOT_OURS)
    return {
        name: tuple(MetricPoint(entry["step"], entry[name]) for entry in entries if name in entry) for name in names
    }
