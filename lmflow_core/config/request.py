"""From given values (flags, a run file) to a resolved request: settings, chosen components and their options."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lmflow_core.config.schema import Schema
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.model import ModelSpec
from lmflow_core.contracts.spec import TORCH
from lmflow_core.errors import LmflowError, OptionError, RequestError, UnknownNameError, suggestion
from lmflow_core.options import OptionField, build, changed, fields_of, to_values
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue

T = TypeVar("T")


@dataclass(frozen=True)
class Component:
    """A chosen name: what provides it, and its options object (None when it has no options)."""

    name: str
    provided: Provided[Any]
    options: Any

    def make(self, catalogue: Catalogue) -> Any:
        """Import the target and make the component."""
        return catalogue.of_kind(self.provided.spec.kind).load(self.provided.qualified)(self.options)

    def changed(self, values: Mapping[str, object]) -> Component:
        """Return the same choice with other values for some of its options.

        Raises:
            OptionError: it has no such option, or the value is out of range.
        """
        if not values:
            return self
        known = {f.name for f in fields_of(type(self.options))} if self.options is not None else set()
        for name in values:
            if name not in known:
                raise OptionError(f"{name}: the {self.provided.spec.kind} {self.name!r} has no such option")
        return replace(self, options=changed(self.options, values))


@dataclass(frozen=True)
class Request:
    """A request whose every value is checked."""

    schema: Schema
    settings: Mapping[type, Any]
    components: Mapping[str, Component]

    def get(self, settings: type[T]) -> T:
        """Return the settings object of a class, or of one made from it."""
        found: T = next(value for kind, value in self.settings.items() if issubclass(kind, settings))
        return found

    def values(self) -> dict[str, Any]:
        """Return every resolved value by name: a run file that makes this request again."""
        resolved: dict[str, Any] = {}
        for settings in self.settings.values():
            resolved |= to_values(settings)
        for selector, component in self.components.items():
            resolved[selector] = component.name
            resolved |= to_values(component.options) if component.options is not None else {}
        return resolved


def chosen(
    schema: Schema, values: Mapping[str, object], catalogue: Catalogue, *, defaults_may_lack: bool = False
) -> dict[str, Provided[Any]]:
    """Return what each selector of a command chooses, by the given values and the defaults; some may choose nothing.

    Args:
        schema: the command.
        values: given values, by name.
        catalogue: the components there are.
        defaults_may_lack: pass over a default that is not installed, as ``--help`` does.

    Raises:
        UnknownNameError, NameConflictError: a name is not that of one healthy component.
        OptionError: a name is missing where there must be one.
    """
    found: dict[str, Provided[Any]] = {}
    fields = {f.name: f for settings in schema.settings for f in fields_of(settings)}
    for selector, kind in schema.selectors.items():
        selecting = fields[selector]
        name = selecting.parse(values[selector], selecting.flag) if selector in values else selecting.default
        if name is None and selector == "engine":
            name = _engine_of_options(values, catalogue) or _engine_of_environment(catalogue)
        if name is None and selector == "decoder":
            name = _decoder_of_model(values, catalogue)
        if name is None:
            continue
        try:
            found[selector] = catalogue.of_kind(kind).find(name)
        except UnknownNameError:
            if selector in values or not defaults_may_lack:
                raise
    return found


def _decoder_of_model(values: Mapping[str, object], catalogue: Catalogue) -> str:
    """Return the decoder that the model asks for; a model that cannot be found is told of when it is opened."""
    adapter = values.get("adapter")
    runtime = TORCH if adapter is not None and Path(str(adapter)).is_dir() else None
    try:
        return find_model(str(values.get("model")), catalogue, runtime).spec.decoder
    except LmflowError:
        return ModelSpec.decoder


def _engine_of_options(values: Mapping[str, object], catalogue: Catalogue) -> str | None:
    """Return the engine that an option chooses which is given, if one does.

    Raises:
        RequestError: options of several are given.
    """
    given = {name for name, value in values.items() if value not in (None, "none")}
    asked = [provided for provided in catalogue.of(EngineSpec) if given & set(provided.spec.choosing())]
    # Options of starting processes are shared: of two engines that have them the one that others choose as well wins.
    asked = [one for one in asked if not any(_takes_more(other.spec, one.spec, given) for other in asked)]
    if len(asked) > 1:
        names = " or ".join(f"--engine {provided.qualified}" for provided in asked)
        raise RequestError(f"the options given choose several engines; choose one: {names}")
    return asked[0].qualified if asked else None


def _takes_more(other: EngineSpec, one: EngineSpec, given: set[str]) -> bool:
    """Whether an engine takes the given options that choose another, and is chosen by some which that does not take."""
    known = [{field.name for field in fields_of(spec.options)} if spec.options else set() for spec in (other, one)]
    choosing = [given & set(spec.choosing()) for spec in (other, one)]
    return choosing[1] <= known[0] and not choosing[0] <= known[1]


def _engine_of_environment(catalogue: Catalogue) -> str:
    """Return the engine whose variables are set.

    Raises:
        RequestError: those of several are.
    """
    engines = [
        provided
        for provided in catalogue.of(EngineSpec)
        if any(os.environ.keys() >= set(variables) for variables in provided.spec.launchers())
    ]
    if len(engines) > 1:
        names = " or ".join(f"--engine {provided.qualified}" for provided in engines)
        raise RequestError(f"the variables of the environment fit several engines; choose one: {names}")
    return engines[0].qualified if engines else "local"


def option_classes(schema: Schema, components: Mapping[str, Provided[Any]]) -> list[type]:
    """Return the options classes of a command with the chosen components."""
    return [*schema.settings, *(p.spec.options for p in components.values() if p.spec.options is not None)]


def all_fields(classes: Sequence[type]) -> Iterator[OptionField]:
    """Yield every field of some options classes.

    Raises:
        RequestError: two classes have a field of the same name, so its flag would be ambiguous.
    """
    owners: dict[str, type] = {}
    for options in classes:
        for option_field in fields_of(options):
            other = owners.setdefault(option_field.name, options)
            if other is not options:
                raise RequestError(
                    f"{option_field.flag} is an option of both {other.__name__} and {options.__name__}; "
                    "these components cannot be combined"
                )
            yield option_field


def resolve(schema: Schema, values: Mapping[str, object], catalogue: Catalogue, where: str = "") -> Request:
    """Check every value of a request.

    Args:
        schema: of the command.
        values: values by field name, flags over run file.
        catalogue: the components there are.
        where: what to put before a flag in messages.

    Raises:
        OptionError: a value is unknown, missing, of the wrong type or out of range.
        UnknownNameError, NameConflictError: a chosen component is not there.
    """
    picked = chosen(schema, values, catalogue)
    known = {f.name for f in all_fields(option_classes(schema, picked))}
    for name in values:
        if name not in known:
            raise OptionError(where + unknown_option(name, known, schema, catalogue))
    components = {
        selector: Component(_name(provided, catalogue), provided, _built(provided.spec.options, values, where))
        for selector, provided in picked.items()
    }
    return Request(schema, {s: build(s, values, where) for s in schema.settings}, components)


def _name(provided: Provided[Any], catalogue: Catalogue) -> str:
    return catalogue.of_kind(provided.spec.kind).unambiguous(provided)


def _built(options: type | None, values: Mapping[str, object], where: str) -> Any:
    return None if options is None else build(options, values, where)


def unknown_option(name: str, known: set[str], schema: Schema, catalogue: Catalogue) -> str:
    """Tell that an option is unknown, and whose it is or what it may have meant."""
    flag = "--" + name.replace("_", "-")
    for selector, kind in schema.selectors.items():
        owners = [
            provided.spec.name
            for provided in catalogue.of_kind(kind)
            if provided.spec.options and name in {f.name for f in fields_of(provided.spec.options)}
        ]
        if owners:
            choices = " or ".join(f"--{selector.replace('_', '-')} {owner}" for owner in owners)
            return f"{flag} belongs to {kind} {' or '.join(map(repr, owners))}: add {choices}"
    return f"unknown option {flag} of 'lmflow {schema.name}'.{suggestion(name, known)}"
