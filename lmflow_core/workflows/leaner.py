"""Changes of a request that need less memory, the cheapest first.

What a change costs is not a number; this is their order, and why:

1. a smaller batch with as many times the accumulation: the same steps, a little slower;
2. recomputed activations: the same steps, a third slower;
3. both;
4. what the engine names as lighter (``EngineSpec.lighter``), with 1 and 2 beside it: the same steps, more traffic;
5. another engine that several processes may use, with what it names as lighter;
6. another tuner: another result. Of those, one that trains more goes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.settings import PlanSettings, TrainingSettings
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.options import fields_of
from lmflow_core.plugins.registry import Catalogue


@dataclass(frozen=True)
class Change:
    """Values that are given in place of others.

    Attributes:
        values: by name.
        drops: names of options that no longer have a place.
    """

    values: Mapping[str, Any]
    drops: frozenset[str] = frozenset()

    def kept(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return the values that stay."""
        return {name: value for name, value in values.items() if name not in self.drops}

    def flags(self) -> str:
        """Return the change as one types it."""
        return " ".join(_flag(name, value) for name, value in self.values.items())

    def joined(self, other: Change) -> Change:
        """Return both."""
        return Change({**self.values, **other.values}, self.drops | other.drops)


def _flag(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    return flag if value is True else f"{flag} {value}"


def changes(request: Request, values: Mapping[str, object], catalogue: Catalogue) -> Iterator[Sequence[Change]]:
    """Yield groups of changes, the cheapest first in each and among them; the last of a group needs the least."""
    within = list(_of_the_step(request.get(TrainingSettings)))
    least = within[-1:]
    yield within
    engines = list(_of_the_engine(request, values, catalogue))
    for engine in engines:
        yield [engine, *(engine.joined(step) for step in least)]
    for tuner in _of_the_tuner(request, catalogue):
        yield [tuner, *(tuner.joined(step) for step in least)]
        for engine in engines:
            joined = tuner.joined(engine)
            yield [joined, *(joined.joined(step) for step in least)]


def _of_the_step(settings: TrainingSettings) -> Iterator[Change]:
    """Yield smaller batches, recomputed activations, and smaller batches with those."""
    smaller: list[Change] = []
    batch, accumulated = settings.batch_size, settings.gradient_accumulation_steps
    while batch > 1 and batch % 2 == 0:
        batch, accumulated = batch // 2, accumulated * 2
        smaller.append(Change({"batch_size": batch, "gradient_accumulation_steps": accumulated}))
    yield from smaller
    if not settings.gradient_checkpointing:
        recomputed = Change({"gradient_checkpointing": True})
        yield recomputed
        yield from (change.joined(recomputed) for change in smaller)


def _of_the_engine(request: Request, values: Mapping[str, object], catalogue: Catalogue) -> Iterator[Change]:
    """Yield what engines name as lighter: the one that was chosen, then others that share work among processes."""
    chosen = request.components["engine"].provided
    others = [each for each in catalogue.of(EngineSpec) if each.qualified != chosen.qualified]
    several = (request.get(PlanSettings).gpus or 1) > 1
    for provided in (chosen, *(others if several else ())):
        other = provided is not chosen
        options = chosen.spec.options
        drops = frozenset(f.name for f in fields_of(options)) if other and options is not None else frozenset()
        for lighter in provided.spec.lighter:
            found = dict(pair.partition("=")[::2] for pair in lighter.split())
            named = {"engine": provided.spec.name} if other or "engine" not in values else {}
            yield Change({**named, **found}, drops)


def _of_the_tuner(request: Request, catalogue: Catalogue) -> Iterator[Change]:
    """Yield other tuners: those that train whole weights before those that make adapters."""
    chosen = request.components["tuner"].provided
    options = chosen.spec.options
    drops = frozenset(f.name for f in fields_of(options)) if options is not None else frozenset()
    others = [each for each in catalogue.of(TunerSpec) if each.qualified != chosen.qualified]
    for provided in sorted(others, key=lambda each: each.spec.adapter_file is not None):
        yield Change({"tuner": provided.spec.name}, drops)
