"""Engines: how a training job is spread over processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel, LoadPlan
from lmflow_core.contracts.spec import Selector, Spec
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

    def all_gather(self, value: object) -> list[Any]:
        """Return what every process of the job passed, in the order of their ranks; all of them call this."""

    def trainer_arguments(self) -> Mapping[str, Any]:
        """Return what the engine adds to the arguments of the Hugging Face trainer."""

    def full_weights(self, model: LanguageModel) -> Mapping[str, Any] | None:
        """Return all weights of a model that is spread over the processes, by name; all of them call this.

        None where each process has them all, so that they can be saved as they are. Processes other than the main
        one, which alone saves, may be given none of them.
        """


@dataclass(frozen=True, kw_only=True)
class EngineSpec(Spec):
    """How a training job is spread over processes; ``target(options)`` satisfies ``Engine``.

    ``environment`` names the variables of a launcher whose presence chooses this engine when none is asked for;
    ``chosen_by`` names one of its options that chooses it, when it is given, before any variable does. ``lighter`` has
    values of its options, ``"name=value name=value"``, with which each process holds less, the cheapest first: they are
    what ``lmflow doctor --plan`` proposes. Where the processes hold what, a target may tell by ``placement`` (see
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
    chosen_by: str | None = None
    lighter: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if ordinary := sorted(set(self.environment).intersection(_ORDINARY)):
            raise SpecError(f"environment of {self.name!r}: {ordinary[0]} is set without any launcher")
