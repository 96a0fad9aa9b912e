"""Command-line arguments to values by option name.

Every option takes one value, ``--name value`` or ``--name=value``; a truth value may be left out (``--resume``),
given (``--resume true``) or denied (``--no-resume``). Underscores and dashes are the same. Several values stand in one,
with commas, or one behind the other where no run file may follow them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmflow_core.cli.lmflow_flags import check_value, is_known, known_names, meaning
from lmflow_core.cli.lmflow_names import IMPLIED, LISTS, SHORT, SWITCHES
from lmflow_core.config.request import all_fields, everything_chosen, option_classes, unknown_option
from lmflow_core.config.run_file import read_run_file
from lmflow_core.config.schema import Schema
from lmflow_core.errors import OptionError
from lmflow_core.options import OptionField, fields_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console

_TRUTH = re.compile(r"^(true|false|yes|no|on|off|0|1)$", re.IGNORECASE)
_VALUE = re.compile(r"^(?!--?[A-Za-z])")


@dataclass
class Arguments:
    """Parsed arguments: values by field name, switches of the command line itself, and the rest in order.

    ``translated`` tells, for a field set by a flag of the original LMFlow, which flag that was.
    """

    values: dict[str, object] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    positional: list[str] = field(default_factory=list)
    translated: dict[str, str] = field(default_factory=dict)


class FlagParser:
    """Parses the flags of one command, with the options of every component it could choose."""

    def __init__(
        self, schema: Schema, catalogue: Catalogue, switches: Sequence[str] = (), *, run_file: bool = True
    ) -> None:
        self._schema = schema
        self._catalogue = catalogue
        self._run_file = run_file
        self._switches = {"json", "help", *switches}
        self._fields = _known_fields(schema, catalogue)
        self._aliases: dict[str, str] = {}
        for option in self._fields.values():
            for alias in option.aliases:
                self._aliases.setdefault(alias, option.name)

    def parse(self, arguments: Sequence[str]) -> Arguments:
        """Sort arguments into values, switches and the rest.

        Raises:
            OptionError: a flag is unknown or lacks its value.
        """
        parsed = Arguments()
        rest = list(arguments)
        while rest:
            token = rest.pop(0)
            if token in ("-h", "--help"):
                parsed.switches.add("help")
            elif token.startswith("--") and len(token) > 2:
                self._flag(parsed, token[2:], rest)
            elif token in SHORT:
                self._flag(parsed, SHORT[token][2:], rest)
            elif token.startswith("-") and len(token) > 1:
                raise OptionError(f"unknown option {token} of 'lmflow {self._schema.name}'")
            else:
                parsed.positional.append(token)
        return parsed

    def _flag(self, parsed: Arguments, token: str, rest: list[str]) -> None:
        written, equals, value = token.partition("=")
        name = written.replace("-", "_")
        given = value if equals else None
        denied = self._truth_denied_by(name)
        if given is not None and (name in self._switches or denied):
            raise OptionError(f"--{written} takes no value")
        if name in self._switches:
            parsed.switches.add(name)
        elif denied:
            parsed.values[denied] = False
        elif (field_name := self._field_name(name)) in self._fields:
            taken = self._value(self._fields[field_name], given, rest)
            if field_name != name:
                check_value(name, taken)
            parsed.values[field_name] = taken
            self._set_unless_given(parsed, name, IMPLIED.get(self._schema.name, {}).get(field_name, {}))
        elif is_known(self._schema.name, name):
            self._from_lmflow(parsed, name, given, rest)
        else:
            known = {*self._fields, *self._aliases, *known_names()}
            raise OptionError(unknown_option(name, known, self._schema, self._catalogue))

    def _field_name(self, name: str) -> str:
        return name if name in self._fields else self._aliases.get(name, name)

    def _truth_denied_by(self, name: str) -> str | None:
        """Return the truth value ``x`` that a flag ``--no-x`` denies, or None."""
        if not name.startswith("no_") or name in self._fields:
            return None
        field_name = self._field_name(name[3:])
        return field_name if field_name in self._fields and self._fields[field_name].type is bool else None

    def canonical(self, key: str, where: str) -> str:
        """Return the field name of a run-file key.

        Raises:
            OptionError: no field has that name.
        """
        name = self._field_name(key)
        if name not in self._fields:
            raise OptionError(where + unknown_option(key, set(self._fields), self._schema, self._catalogue))
        return name

    def _value(self, option: OptionField, given: str | None, rest: list[str]) -> str:
        if given is not None:
            return given
        if option.type is bool:
            return _take_truth(rest)
        if not rest or not (_VALUE.match(rest[0]) or (option.type is str and not rest[0].startswith("--"))):
            raise OptionError(f"{option.flag} needs a value: {option.help}")
        value = rest.pop(0)
        while option.many and not self._run_file and rest and not rest[0].startswith("-"):
            value += f",{rest.pop(0)}"
        return value

    def _from_lmflow(self, parsed: Arguments, name: str, given: str | None, rest: list[str]) -> None:
        """Take a flag of the original LMFlow that has no option of the same name here."""
        if given is None and name in SWITCHES:
            given = _take_truth(rest)
        elif given is None and rest and not rest[0].startswith("--"):
            given = rest.pop(0)
            while name in LISTS and rest and not rest[0].startswith("--"):
                given += f",{rest.pop(0)}"
        told = meaning(self._schema.name, name, given)
        if told.note is not None:
            console.note(f"--{name} has no effect here: {told.note}")
        self._set_unless_given(parsed, name, told.values)

    def _set_unless_given(self, parsed: Arguments, flag: str, values: Mapping[str, object]) -> None:
        for key, value in values.items():
            if key not in self._fields:
                option = "--" + key.replace("_", "-")
                raise OptionError(
                    f"--{flag}, here {option}, is no option of 'lmflow {self._schema.name}': leave it out"
                )
            if key in parsed.translated and parsed.values[key] != value:
                raise OptionError(f"--{parsed.translated[key]} and --{flag} exclude each other")
            if key not in parsed.values:
                parsed.values[key] = value
                parsed.translated[key] = flag


def _take_truth(rest: list[str]) -> str:
    return rest.pop(0) if rest and _TRUTH.match(rest[0]) else "true"


def _known_fields(schema: Schema, catalogue: Catalogue) -> dict[str, OptionField]:
    """Return every field by name; the command's own come first, so that no component can change their meaning."""
    classes = list(schema.settings)
    for kind in schema.selectors.values():
        classes += [p.spec.options for p in catalogue.of_kind(kind) if p.spec.options is not None]
    fields: dict[str, OptionField] = {}
    for options in dict.fromkeys(classes):
        for option in fields_of(options):
            fields.setdefault(option.name, option)
    return fields


def with_run_file(parsed: Arguments, parser: FlagParser) -> dict[str, object]:
    """Return the values of the run file named by the first positional argument, overridden by the flags.

    Raises:
        OptionError: there are more arguments than one run file.
        RequestError: the run file cannot be read or has an unknown key.
    """
    if not parsed.positional:
        return dict(parsed.values)
    if len(parsed.positional) > 1:
        raise OptionError(f"unexpected argument {parsed.positional[1]!r}; one run file is taken")
    path = Path(parsed.positional[0])
    values = {parser.canonical(key, f"{path}: "): value for key, value in read_run_file(path).items()}
    return values | parsed.values


def help_rows(schema: Schema, values: Mapping[str, object], catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Yield each flag of a command with its help, for the components that the values choose."""
    picked = everything_chosen(schema, values, catalogue, defaults_may_lack=True)
    for option in all_fields(option_classes(schema, picked)):
        yield f"{option.flag} {metavar(option)}".rstrip(), _help(option)


def instead_rows(schema: Schema) -> Iterator[tuple[str, str]]:
    """Yield the flags by which a command takes other options than its own, where they are no options of its own."""
    own = {option.name for settings in schema.settings for option in fields_of(settings)}
    for name, other in schema.instead.items():
        for option in (each for settings in other.settings for each in fields_of(settings)):
            if option.name == name and name not in own:
                yield f"{option.flag} {metavar(option)}", f"{option.help} Other options then: add --help."


def metavar(option: OptionField) -> str:
    """Return what stands for the value of an option: its choices, or a word for its type."""
    if option.choices:
        return "|".join(option.choices)
    names = {bool: "", int: "N", float: "X", str: "TEXT"}
    word = names.get(option.type, "PATH")
    return f"{word},…" if option.many else word


def _help(option: OptionField) -> str:
    default = _default(option)
    required = " [required]" if option.required else ""
    aliases = f" (also {', '.join('--' + alias for alias in option.aliases)})" if option.aliases else ""
    return f"{option.help}{default}{required}{aliases}"


def _default(option: OptionField) -> str:
    if option.required or option.default is None or option.default is False or option.default == ():
        return ""
    shown = ",".join(map(str, option.default)) if option.many else option.default
    return f" [default: {shown}]"
