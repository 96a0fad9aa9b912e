"""Engines: how a training job is spread over processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel, LoadPlan
from lmflow_core.contracts.spec import Selector, Spec, check_target
from lmflow_core.errors import SpecError

# Variables that are set without any launcher: an engine that named one would be chosen always.
_ORDINARY = frozenset(
    ("HOME", "HOSTNAME", "LANG", "LOGNAME", "MAIL", "PATH", "PWD", "PYTHONPATH", "SHELL", "TERM", "USER")
)


@dataclass(frozen=True)
class World:
    """The processes of a job and this one's place among them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


class Engine(Protocol):
    """Target of an ``EngineSpec``."""

    def start(self) -> AbstractContextManager[World]:
        """Join the job's processes for the time of the context.

        Raises:
            RequestError: the environment is not the one this engine needs.
        """

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Return a load plan with what the engine needs of the weights."""

    def spread(self, module: Any) -> None:
        """Spread weights over the processes, in place; nothing to do for an engine that does not, or not at this point.

        All processes call this, once the tuner has said what trains and before there is an optimizer.

        Args:
            module: what trains, with its loss: its forward pass is one of training. What needs weights outside of
                training runs within its method ``reach``, which takes a function and returns what that returns.
        """

    def all_gather(self, value: object) -> list[Any]:
        """Return what every process of the job passed, in the order of their ranks; all of them call this."""

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Return what the engine adds to the arguments of the Hugging Face trainer."""

    def full_weights(self, model: LanguageModel) -> Mapping[str, Any] | None:
        """Return all weights of a model that is spread over the processes, by name; all of them call this.

        None where each process has them all, so that they can be saved as they are. Processes other than the main
        one, which alone saves, may be given none of them.
        """


@dataclass(frozen=True)
class CommandLine:
    """A training command as it was given to this process, for who starts it again in others.

    Attributes:
        arguments: behind ``python -m lmflow_core``; a flag that is added at the end counts.
        output: folder of the result, which holds the checkpoints in ``checkpoints``.
        device: what ``--device`` says.
        resumes: whether the command goes on from a checkpoint by itself.
    """

    arguments: tuple[str, ...]
    output: Path
    device: str
    resumes: bool


class Launcher(Protocol):
    """What ``EngineSpec.launcher`` names: made with the engine's options, before anything heavy is imported."""

    def launch(self, command: CommandLine) -> int | None:
        """Run a command in the processes of a job, to the end, and return the exit status of the program.

        None when this process is to train itself: it is one of those processes, or nobody asked for more than one.
        A process that was started may tell how it ended in the file that ``LMFLOW_ERROR_FILE`` names: see
        :mod:`lmflow_core.cli.endings`.

        Raises:
            RequestError: the processes cannot be started as the options say.
        """


@dataclass(frozen=True, kw_only=True)
class EngineSpec(Spec):
    """How a training job is spread over processes; ``target(options)`` satisfies ``Engine``.

    ``environment`` names the variables of a launcher whose presence chooses this engine when none is asked for, and
    ``environments`` those of further launchers; ``chosen_by`` names one of its options that chooses it when it is
    given, before any variable does, or several. ``launcher`` is a second target, a ``Launcher``, for an engine that
    starts the processes of its jobs itself. ``lighter`` has values of its options,
    ``"name=value name=value"``, with which each process holds less, the cheapest first: they are what
    ``lmflow doctor --plan`` proposes. Where the processes hold what, a target may tell by ``placement`` (see
    ``contracts/memory.py``).

    Example::

        @hookimpl
        def lmflow_register_engines():
            yield EngineSpec(
                name="mpi",
                target="lmflow_mpi.engine:MpiEngine",
                summary="The processes MPI started.",
                environment=("OMPI_COMM_WORLD_RANK",),
            )
    """

    kind: ClassVar[str] = "engine"
    contract: ClassVar[type | None] = Engine
    selector: ClassVar[Selector | None] = Selector(
        "engine", "How the job is spread; recognised from the environment when left out.", {"finetune": None}
    )
    environment: tuple[str, ...] = ()
    environments: tuple[tuple[str, ...], ...] = ()
    chosen_by: str | tuple[str, ...] | None = None
    launcher: str | None = None
    lighter: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.launcher is not None:
            check_target("launcher", self.launcher, self.name)
        for variables in self.launchers():
            if ordinary := sorted(set(variables).intersection(_ORDINARY)):
                raise SpecError(f"environment of {self.name!r}: {ordinary[0]} is set without any launcher")

    def launchers(self) -> list[tuple[str, ...]]:
        """Return the variables of each launcher that chooses this engine."""
        return [variables for variables in (self.environment, *self.environments) if variables]

    def choosing(self) -> tuple[str, ...]:
        """Return the options that choose this engine."""
        return (self.chosen_by,) if isinstance(self.chosen_by, str) else self.chosen_by or ()
