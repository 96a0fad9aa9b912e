"""The hooks a plugin may implement, one for each spec class; everything about one follows from that class.

Each hook takes no argument and returns specs. Every implementation is called, once, when plugins load, and none in a
hot loop. Order never matters: a user chooses by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator

import pluggy

from lmflow_core.contracts.spec import Spec

PROJECT = "lmflow"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

# The modules of this package that hold an extension point. A new one is such a module, and its name here.
_MODULES = (
    "model",
    "objective",
    "tuner",
    "optimizer",
    "template",
    "dataset",
    "source",
    "decoder",
    "exporter",
    "attention",
    "position_scaling",
    "reward",
    "benchmark",
    "engine",
    "command",
)


def _spec_classes(modules: Iterable[str]) -> Iterator[type[Spec]]:
    for name in modules:
        module = importlib.import_module(f"lmflow_core.contracts.{name}")
        yield from (
            found
            for found in vars(module).values()
            if isinstance(found, type) and issubclass(found, Spec) and found.__module__ == module.__name__
        )


SPEC_CLASSES: tuple[type[Spec], ...] = tuple(_spec_classes(_MODULES))
KINDS: dict[str, type[Spec]] = {spec_class.kind: spec_class for spec_class in SPEC_CLASSES}
HOOKS: dict[str, type[Spec]] = {spec_class.hook(): spec_class for spec_class in SPEC_CLASSES}


def _hook(spec_class: type[Spec]) -> Callable[[object], Iterable[Spec]]:
    """Return the hook of a kind; its documentation is that of the spec class."""

    def register(self: object) -> Iterable[Spec]:
        raise NotImplementedError(spec_class)

    register.__name__ = spec_class.hook()
    register.__doc__ = spec_class.__doc__
    register.__annotations__ = {"return": Iterable[spec_class]}  # type: ignore[valid-type]
    return hookspec(register)


HookSpecs = type("HookSpecs", (), {name: _hook(spec_class) for name, spec_class in HOOKS.items()})
