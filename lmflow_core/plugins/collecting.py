"""The hooks a plugin implements, and the specs that these give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from lmflow_core.contracts.hooks import HOOKS
from lmflow_core.contracts.spec import HOOK_PREFIX, Spec
from lmflow_core.errors import suggestion
from lmflow_core.plugins.containment import Interrupts
from lmflow_core.plugins.wording import full_traceback, one_line

T = TypeVar("T")
_MOST_SPECS = 10_000


class StageError(Exception):
    """A plugin ended at a stage; the message is the one line the user sees."""

    def __init__(self, stage: str, message: str, details: str | None = None) -> None:
        self.stage = stage
        self.details = details
        super().__init__(message)


def guarded(stage: str, interrupts: Interrupts, action: Callable[[], T]) -> T:
    """Run a plugin's code; turn whatever it raises, but an interrupt of the user's, into a stage error."""
    try:
        return action()
    except StageError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and interrupts.by_user:
            raise
        raise StageError(stage, one_line(error), full_traceback(error)) from None


def known_hooks(manager: pluggy.PluginManager, module: ModuleType) -> list[tuple[str, pluggy.HookImpl]]:
    """Return the hooks a plugin implements; those it marks optional may belong to a newer core.

    Raises:
        StageError: it implements none, an unknown one, or one that asks for more than to be called.
    """
    found = [
        (caller, implementation)
        for caller in manager.get_hookcallers(module) or []
        for implementation in caller.get_hookimpls()
        if implementation.plugin is module
    ]
    if not found:
        raise StageError("hooks", f"not a plugin: it implements no {HOOK_PREFIX}… hook (is @hookimpl missing?)")
    for caller, implementation in found:
        if not caller.has_spec() and not implementation.optionalhook:
            raise StageError("hooks", f"unknown hook {caller.name!r}.{suggestion(caller.name, HOOKS)}")
        if _ordered(implementation):
            raise StageError("hooks", f"{caller.name} asks for an order or wraps others; hooks only declare")
    for name in dir(module):
        if name.startswith(HOOK_PREFIX) and manager.parse_hookimpl_opts(module, name) is None:
            raise StageError("hooks", f"{name} is not marked with @hookimpl")
    return [(caller.name, implementation) for caller, implementation in found if caller.has_spec()]


def _ordered(implementation: pluggy.HookImpl) -> bool:
    marks = (
        implementation.tryfirst,
        implementation.trylast,
        implementation.hookwrapper,
        implementation.wrapper,
    )
    return any(marks)


def collected(implementations: Sequence[tuple[str, pluggy.HookImpl]]) -> Iterator[Spec]:
    """Call the hooks and yield plain copies of what they give.

    Raises:
        StageError: it is no spec of the hook's kind, or a name is given twice.
    """
    names: dict[str, set[str]] = {hook: set() for hook, _ in implementations}
    for hook, implementation in sorted(implementations, key=lambda pair: pair[0]):
        given: Any = implementation.function() or ()
        specs = list(islice(given, _MOST_SPECS + 1))
        if len(specs) > _MOST_SPECS:
            raise StageError("collect", f"{hook} gives more than {_MOST_SPECS} specs")
        for spec in (_plain_spec(hook, each) for each in specs):
            for name in (spec.name, *spec.aliases):
                if name in names[hook]:
                    raise StageError("collect", f"{hook} gives the name {name!r} twice")
                names[hook].add(name)
            yield spec


def _plain_spec(hook: str, spec: object) -> Spec:
    """Return a copy made of plain strings and tuples: one of a class of the plugin's may behave in any way later."""
    expected = HOOKS[hook]
    if type(spec) is not expected:
        raise StageError("collect", f"{hook} gave a {type(spec).__name__}, not a {expected.__name__}")
    return expected(**{field.name: _plain(getattr(spec, field.name)) for field in dataclasses.fields(expected)})


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in tuple.__iter__(value))
    return value
