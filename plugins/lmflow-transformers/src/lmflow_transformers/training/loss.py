"""What a loss is: an object that the shared trainer runs, whatever is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from lmflow_transformers.batches import Batch


class Mean(NamedTuple):
    """A metric as its sum and what it is divided by, so that batches and processes add up."""

    total: torch.Tensor
    count: torch.Tensor | int


@dataclass(frozen=True)
class LossOutput:
    """The loss of a batch, summed over its units: a scalar with gradients; and metrics by name, without."""

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
        self._loss = loss

    def forward(self, batch: Batch, units: torch.Tensor | int) -> dict[str, Any]:
        """Return ``loss``, the share of a batch in the loss of a step of so many units, and ``metrics``."""
        output = self._loss(self._inner[0], batch)
        metrics = {name: Mean(mean.total.detach(), mean.count) for name, mean in output.metrics.items()}
        return {"loss": output.total / units, "metrics": metrics}
