"""From given values (flags, a run file) to a resolved request: settings, chosen components and their options."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
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
    """A chosen name: what provides it, its options (None when it has none), and its weight where several are chosen."""

    name: str
    provided: Provided[Any]
    options: Any
    weight: float = 1.0

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
    """A request whose every value is checked.

    ``components`` has what each selector chose; ``weighted`` what those chose that take several.
    """

    schema: Schema
    settings: Mapping[type, Any]
    components: Mapping[str, Component]
    weighted: Mapping[str, tuple[Component, ...]] = field(default_factory=dict)

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
        for component in (*self.components.values(), *chain.from_iterable(self.weighted.values())):
            resolved |= to_values(component.options) if component.options is not None else {}
        return resolved


def chosen(
    schema: Schema, values: Mapping[str, object], catalogue: Catalogue, *, defaults_may_lack: bool = False
) -> dict[str, Provided[Any]]:
    """Return what each selector of a command chooses, by the given values and the defaults; some may choose nothing.

    Those that take several are left to :func:`chosen_weighted`.

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
        if schema.takes_several(selector):
            continue
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


def chosen_weighted(
    schema: Schema, values: Mapping[str, object], catalogue: Catalogue
) -> dict[str, list[tuple[Provided[Any], float]]]:
    """Return what each selector that takes several chooses, with the weight of each.

    Raises:
        UnknownNameError, NameConflictError: a name is not that of one healthy component.
        OptionError: a weight is no number, or a name comes twice.
    """
    fields = {f.name: f for settings in schema.settings for f in fields_of(settings)}
    found: dict[str, list[tuple[Provided[Any], float]]] = {}
    for selector, kind in schema.selectors.items():
        if not schema.takes_several(selector) or selector not in values:
            continue
        each = found[selector] = []
        for written in fields[selector].parse(values[selector], fields[selector].flag):
            name, weight = _weighted(written, fields[selector].flag)
            each.append((catalogue.of_kind(kind).find(name), weight))
            if len({provided.qualified for provided, _ in each}) < len(each):
                raise OptionError(f"{fields[selector].flag}: {name} comes twice")
    return found


def _weighted(written: str, flag: str) -> tuple[str, float]:
    """Return the name and the weight that ``name`` or ``name=weight`` says."""
    name, equals, weight = written.partition("=")
    try:
        number = float(weight) if equals else 1.0
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"{flag} {written}: the weight {weight!r} is no number; write it as in {name}=0.5")
    return name.strip(), number


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


def option_classes(schema: Schema, components: Iterable[Provided[Any]]) -> list[type]:
    """Return the options classes of a command with the chosen components."""
    return [*schema.settings, *(p.spec.options for p in components if p.spec.options is not None)]


def everything_chosen(
    schema: Schema, values: Mapping[str, object], catalogue: Catalogue, *, defaults_may_lack: bool = False
) -> list[Provided[Any]]:
    """Return all that the given values choose; raises as :func:`chosen` and :func:`chosen_weighted` do."""
    single = chosen(schema, values, catalogue, defaults_may_lack=defaults_may_lack)
    return _together(single, chosen_weighted(schema, values, catalogue))


def _together(
    single: Mapping[str, Provided[Any]], several: Mapping[str, Sequence[tuple[Provided[Any], float]]]
) -> list[Provided[Any]]:
    return [*single.values(), *(provided for each in several.values() for provided, _ in each)]


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
    single, several = chosen(schema, values, catalogue), chosen_weighted(schema, values, catalogue)
    known = {f.name for f in all_fields(option_classes(schema, _together(single, several)))}
    for name in values:
        if name not in known:
            raise OptionError(where + unknown_option(name, known, schema, catalogue))

    def component(provided: Provided[Any], weight: float = 1.0) -> Component:
        options = provided.spec.options
        built = None if options is None else build(options, values, where)
        return Component(catalogue.of_kind(provided.spec.kind).unambiguous(provided), provided, built, weight)

    return Request(
        schema,
        {settings: build(settings, values, where) for settings in schema.settings},
        {selector: component(provided) for selector, provided in single.items()},
        {selector: tuple(component(*one) for one in each) for selector, each in several.items()},
    )


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
    for option, other in schema.instead.items():
        if any(name in {f.name for f in fields_of(settings)} for settings in other.settings):
            return f"{flag} belongs to 'lmflow {other.name}': add --{option}"
    return f"unknown option {flag} of 'lmflow {schema.name}'.{suggestion(name, known)}"
