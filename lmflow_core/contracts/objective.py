"""Objectives: what is learned, and the job that learns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from lmflow_core.contracts.engine import Engine, World
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.contracts.tokens import EncodedDataset
from lmflow_core.contracts.tuner import Tuner


class EarlyCheck(Protocol):
    """What a tuner or an objective offers besides, to refuse what it cannot work with before anything heavy."""

    def check(self, model: LanguageModel, tuner: Tuner) -> None:
        """Check an open model, whose weights are not loaded, and the tuner of the run.

        Raises:
            LmflowError: they do not suit; the message names what would.
        """


@dataclass(frozen=True)
class TrainingJob:
    """Everything an objective needs to train. ``checkpoints`` is a folder the trainer may write into."""

    model: LanguageModel
    tuner: Tuner
    engine: Engine
    world: World
    data: EncodedDataset
    held_out: EncodedDataset | None
    settings: TrainingSettings
    attention: str
    checkpoints: Path
    resume: bool = False


@dataclass(frozen=True)
class LossPoint:
    """The mean training loss, in nats per labelled token, since the last point."""

    step: int
    loss: float


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did. ``tokens`` counts real tokens, over all processes."""

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    losses: tuple[LossPoint, ...]
    held_out_losses: tuple[LossPoint, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens trained per second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Objective(Protocol):
    """Target of an ``ObjectiveSpec``: drives the trainer."""

    def train(self, job: TrainingJob) -> TrainingReport:
        """Train the job's model in place.

        Raises:
            LmflowError: training failed; the message names what can be done.
        """


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """A loss; ``target(options)`` satisfies ``Objective``.

    ``examples`` are the kinds of example it learns from: ``text``, ``prompted``, ``conversation``.

    Example::

        @hookimpl
        def lmflow_register_objectives():
            yield ObjectiveSpec(
                name="pairwise",
                target="lmflow_pairs.objective:Pairwise",
                summary="Prefer one answer.",
                examples=("preference",),
            )
    """

    kind: ClassVar[str] = "objective"
    contract: ClassVar[type | None] = Objective
    selector: ClassVar[Selector | None] = Selector("objective", "What is learned.", {"finetune": "sft"})
    examples: tuple[str, ...]
