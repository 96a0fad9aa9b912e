"""Optimizers: how parameters are updated from their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.contracts.spec import Selector, Spec


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are updated alike.

    Attributes:
        parameters: by name, in the order of the network's own.
        lr_factor: their learning rate as a multiple of the run's.
        decays: whether weight decay applies.
    """

    parameters: Mapping[str, Any]
    lr_factor: float = 1.0
    decays: bool = True


class Optimizer(Protocol):
    """Target of an ``OptimizerSpec``. Most go on from the torch runtime's ``AdamW`` and change ``make`` alone."""

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> Any:
        """Return a ``torch.optim.Optimizer`` over all parameters of some groups.

        ``settings`` have the learning rate and the decay; ``torch_groups(groups, settings)`` of the torch runtime is
        what its optimizers are made of.

        Raises:
            RequestError: it cannot update such parameters, or a library is missing.
        """

    def use_weights(self, optimizer: Any, *, training: bool) -> None:
        """Set the parameters to the weights that train, or to those one uses, where the two differ (arXiv:2405.15682).

        Called with what ``make`` returned, around each measurement and at the end. Checkpoints hold what trains.
        """


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec(Spec):
    """A way to update parameters; ``target(options)`` satisfies ``Optimizer``.

    ``learning_rate`` is the peak used when the user gives none, for one with which the tuner's own would not do.

    Example::

        @hookimpl
        def lmflow_register_optimizers():
            yield OptimizerSpec(name="lion", target="lmflow_lion.optimizer:Lion", summary="Sign of the momentum.")
    """

    kind: ClassVar[str] = "optimizer"
    contract: ClassVar[type | None] = Optimizer
    selector: ClassVar[Selector | None] = Selector("optimizer", "How parameters are updated.", {"finetune": "adamw"})
    learning_rate: float | None = None
