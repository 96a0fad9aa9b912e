"""Whether an object has what a protocol asks for: methods, attributes, properties, and how each is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_EMPTY = inspect.Parameter.empty
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def misfits(value: object, protocol: type) -> list[str]:
    """Return what keeps an object from fitting a protocol, a sentence for each; empty when it fits."""
    return [problem for name in _members(protocol) for problem in _problems(value, name, protocol)]


def _members(protocol: type) -> list[str]:
    """Return the names of a protocol's members, those of the protocols it goes on from too."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False) and base is not Protocol]
    names: dict[str, None] = {}
    for base in reversed(bases):
        names |= dict.fromkeys(inspect.get_annotations(base))
        names |= {name: None for name in vars(base) if name == "__call__" or not name.startswith("_")}
    return list(names)


def _problems(value: object, name: str, protocol: type) -> Iterator[str]:
    member = inspect.getattr_static(protocol, name, None)
    try:
        found = value if name == "__call__" else getattr(value, name)
    except AttributeError as error:
        kind = "method" if inspect.isfunction(member) else "attribute"
        # A property that is there and fails is another mistake than one that is not.
        there = inspect.getattr_static(value, name, None) is not None
        yield f"reading {name} fails: {error}" if there else f"it has no {kind} {name!r}"
        return
    if not inspect.isfunction(member):
        if inspect.ismethod(found):
            yield f"{name} is a method, where a value is read"
    elif not callable(found):
        yield f"{name} is a {type(found).__name__}, where a method is called"
    else:
        yield from (f"{name}() {problem}" for problem in _signature_problems(found, member))


def _signature_problems(function: Callable[..., Any], declared: Callable[..., Any]) -> Iterator[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return  # built in; there is nothing to compare
    asked = [p for name, p in inspect.signature(declared).parameters.items() if name != "self"]
    kinds = {p.kind for p in parameters.values()}
    places = [name for name, p in parameters.items() if p.kind in _POSITIONAL]
    for place, wanted in enumerate(asked):
        if wanted.name not in parameters:
            if not kinds.issuperset(_VARIABLE):
                yield f"does not take {wanted.name}"
        elif wanted.kind in _POSITIONAL and (place >= len(places) or places[place] != wanted.name):
            yield f"takes {wanted.name} at another place"
        elif wanted.default is not _EMPTY and parameters[wanted.name].default is _EMPTY:
            yield f"needs {wanted.name}, which may be left out"
    known = {wanted.name for wanted in asked}
    for name, parameter in parameters.items():
        needed = parameter.default is _EMPTY and parameter.kind not in _VARIABLE
        if name not in known and needed:
            yield f"needs {name}, which it is not given"
