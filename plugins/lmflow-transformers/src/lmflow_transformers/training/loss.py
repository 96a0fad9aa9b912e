"""What a loss is: an object that the shared trainer runs, whatever is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from lmflow_core.api import LmflowError
from lmflow_transformers.batches import Batch
from lmflow_transformers.sharding import keep_head_whole

Result = TypeVar("Result")
# What the trainer tells beside the metrics of a loss.
TRAINER_NAMES = frozenset(("loss", "step", "epoch", "learning_rate", "grad_norm"))
VALIDATION_PREFIX = "eval_"


class Mean(NamedTuple):
    """A metric as its sum, a scalar, and what it is divided by, so that batches and processes add up.

    One whose counts are zero everywhere is not told.
    """

    total: torch.Tensor
    count: torch.Tensor | int


@dataclass(frozen=True)
class LossOutput:
    """The loss of a batch, summed over its units: a scalar with gradients; and metrics by name, without.

    The names are any but those of the trainer's own figures (``loss``, ``step``, ``epoch``, ``learning_rate``,
    ``grad_norm``), and do not begin with ``eval_``.
    """

    total: torch.Tensor
    metrics: Mapping[str, Mean] = field(default_factory=dict)


class Loss(Protocol):
    """Maps a network and a batch to a sum.

    Attributes:
        unit: what it counts in, in the plural: ``tokens``, ``pairs``. The loss of a step is the sum over all its
            micro-batches, accumulated batches and processes, divided by their units.
    """

    unit: str

    def units(self, batch: Batch) -> int:
        """Return how many units a batch has."""

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        """Return the loss of a batch; ``network`` is the transformers model, with any adapter inside of it."""


class LossModule(torch.nn.Module):
    """A network with its loss, so that what wraps a module for a job sees one forward pass from batch to loss."""

    def __init__(self, network: torch.nn.Module, inner: Any, loss: Loss) -> None:
        """Wrap what trains.

        Args:
            network: what holds the parameters: the transformers model, perhaps inside of an adapter.
            inner: the transformers model itself.
            loss: what is learned.
        """
        super().__init__()
        self.network = network
        # Not a second child: its parameters are the network's.
        self._inner = (inner,)
        self.loss = loss
        keep_head_whole(self, inner)

    def reach(self, action: Callable[[], Result]) -> Result:
        """Return what a function returns that uses the network outside of a forward pass of this module."""
        return action()

    def forward(self, batch: Batch, units: torch.Tensor | int) -> dict[str, Any]:
        """Return ``loss``, the share of a batch in the loss of a step of so many units, and ``metrics``.

        A batch that does not count has a share of zero, whose gradients are zeros, and no metrics.

        Raises:
            LmflowError: what the loss returned is no ``LossOutput`` of scalars under names that are free.
        """
        output = self.loss(self._inner[0], batch)
        if problem := _problem(output):
            raise LmflowError(f"the loss {type(self.loss).__name__} returned {problem}")
        if not batch.counts:
            return {"loss": output.total * 0.0, "metrics": {}}
        metrics = {name: Mean(mean.total.detach(), mean.count) for name, mean in output.metrics.items()}
        return {"loss": output.total / units, "metrics": metrics}


def _problem(output: object) -> str | None:
    """Return what is wrong with what a loss returned, or None."""
    if not isinstance(output, LossOutput):
        return f"a {type(output).__name__}: give LossOutput(total, metrics)"
    if not _is_scalar(output.total):
        return "a total that is no scalar tensor"
    for name, mean in output.metrics.items():
        if name in TRAINER_NAMES or name.startswith(VALIDATION_PREFIX):
            return f"a metric {name!r}, which is the trainer's own: call it otherwise"
        if not isinstance(mean, Mean) or not _is_scalar(mean.total):
            return f"a metric {name!r} that is no mean: give Mean(sum, count), the sum a scalar tensor"
    return None


def _is_scalar(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() == 0
