"""How much memory a training run needs: what a model is asked before its weights are read, and what it answers.

Nobody has to say more than what a run asks of them anyway. Two things are optional, and asked for by name: a loader of
models may sketch one (:class:`SketchLoader`), and an engine may tell its :class:`Placement` (:class:`Placing`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmflow_core.contracts.model import LoadPlan
from lmflow_core.contracts.settings import ModelSettings, TrainingSettings


@dataclass(frozen=True)
class Placement:
    """Where an engine keeps the parts of a training job.

    Attributes:
        plan: what its ``plan`` would return, without any of its effects.
        weights: among how many processes the weights are spread; 1 is all in each.
        gradients: the same of the gradients between two passes.
        state: the same of optimizer state, and of the float32 copies if there are any.
        gathered: spread weights come together for a layer at a time while it computes.
        weights_in_main: weights wait in main memory, or on a disk, while no layer needs them.
        state_in_main: the same of optimizer state and the copies.
        copies: bytes for each parameter that trains in copies that the engine updates (such as float32 weights beside
            those of half precision) and that are spread as the state is.
        buffers: further bytes of each process, such as those that gradients are collected in.
    """

    plan: LoadPlan
    weights: int = 1
    gradients: int = 1
    state: int = 1
    gathered: bool = False
    weights_in_main: bool = False
    state_in_main: bool = False
    copies: int = 0
    buffers: int = 0


class Placing(Protocol):
    """An engine that tells where it keeps what; one that does not is taken to keep everything in each process."""

    def placement(self, plan: LoadPlan, processes: int) -> Placement:
        """Return where the parts of a job of some processes are. Devices need not exist on this machine.

        Raises:
            RequestError: the engine cannot have so many processes, or cannot place such weights.
        """


@dataclass(frozen=True)
class PlannedRun:
    """A training run that is not carried out.

    Attributes:
        tuner: decides what trains: its ``check``, ``prepare``, ``parameter_groups`` and the start of its callbacks.
        optimizer: made on a few small parameters, to count its state.
        objective: gives its loss by a method ``loss``, where it has one; else that of predicting tokens is taken.
        settings: of the run; ``lr`` is set.
        placement: of the engine, with the load plan to which tuner, objective and engine have added.
        length: tokens of an example.
        device: kind of device, ``cpu`` or ``cuda``; it need not exist here.
        processes: of the job, each on a device of its own.
    """

    tuner: Any
    optimizer: Any
    objective: Any
    settings: TrainingSettings
    placement: Placement
    length: int
    device: str
    processes: int = 1


@dataclass(frozen=True)
class MemoryPart:
    """What one part of a run takes in each process, in bytes, at the moment when it takes most in all.

    Attributes:
        name: of the part: weights, gradients, ….
        device: bytes on the device; on a processor, that is main memory.
        main: bytes in main memory beside a device.
        reason: how it was worked out, in a few words.
    """

    name: str
    device: int
    main: int = 0
    reason: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """What a run would take in each process.

    Attributes:
        parts: they add up.
        parameters: of the model and what the tuner adds.
        trained: how many of them train at a time.
        tokens: that go through the network at a time.
        assumptions: what nobody told.
    """

    parts: tuple[MemoryPart, ...]
    parameters: int
    trained: int
    tokens: int
    assumptions: tuple[str, ...] = field(default=())

    @property
    def device(self) -> int:
        """Bytes on each device."""
        return sum(part.device for part in self.parts)

    @property
    def main(self) -> int:
        """Bytes in main memory for each process, beside a device."""
        return sum(part.main for part in self.parts)


class ModelSketch(Protocol):
    """A model of which the configuration alone was read."""

    context_length: int | None

    def planning(self) -> AbstractContextManager[None]:
        """Return a context in which devices that are asked for need not exist."""

    def memory(self, run: PlannedRun) -> MemoryPlan:
        """Return what a run takes.

        Raises:
            RequestError: the tuner cannot train the model.
        """


class SketchLoader(Protocol):
    """A loader that can tell what a run of its models needs; one without ``sketch`` cannot."""

    def sketch(self, reference: str, settings: ModelSettings) -> ModelSketch:
        """Read the configuration of a model, without weights or tokenizer.

        Raises:
            ModelError: the reference has no configuration, or one that is not known.
        """
