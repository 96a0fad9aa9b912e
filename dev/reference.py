"""Writes the reference, ``docs/reference/``, from the code: extension points, commands, exit statuses, plugins.

``python dev/reference.py`` writes it; with ``--check`` it tells whether the pages are up to date. What stands there
comes from specs, protocols, options and docstrings of the plugins in ``plugins/`` and ``contrib/``; nothing is written
by hand but the words between.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from lmflow_core import api, errors
from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import metavar
from lmflow_core.cli.main import CORE_COMMANDS, cli
from lmflow_core.config.schema import FINETUNE, Schema
from lmflow_core.contracts.command import CommandSpec
from lmflow_core.contracts.hooks import SPEC_CLASSES
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import LmflowError
from lmflow_core.options import OptionField, fields_of
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts import CONTRACTS

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "docs" / "reference"
_NOTE = "*This page is written from the code by `dev/reference.py`.*"
_SECTION = re.compile(r"^(Args|Attributes|Class attributes|Raises|Returns):$")
_ITEM = re.compile(r"^(?:``)?([\w., ]+?)(?:``)?: (.*)$", re.DOTALL)


def known_plugins() -> PluginSet:
    """Return the plugins of this repository, whatever else is installed.

    Raises:
        SystemExit: one of them is missing or not healthy, so that the pages would lack what it provides.
    """
    folders = {path.parent.name for kind in ("plugins", "contrib") for path in _ROOT.glob(f"{kind}/*/pyproject.toml")}
    records = [record for record in load_plugins(PluginPolicy()).records if record.distribution in folders]
    absent = folders - {record.distribution for record in records if record.status == "ok"}
    if absent:
        sys.exit(f"not installed or not healthy: {', '.join(sorted(absent))}")
    return PluginSet(tuple(records))


# --- text ---------------------------------------------------------------------------------------------------------


def markdown(docstring: str | None) -> str:
    """Turn a docstring into Markdown: sections become lists, and an example a code block."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return "\n\n".join(filter(None, (_part(part) for part in _parts(text)))).strip()


def _parts(text: str) -> Iterator[list[str]]:
    """Yield the paragraphs of a docstring, a section or an example with all that is indented below it."""
    part: list[str] = []
    inside = False
    for line in text.splitlines():
        begins = bool(_SECTION.match(line)) or line == "Example::"
        if begins or (inside and line and not line.startswith(" ")) or (not inside and not line):
            yield part
            part, inside = [], begins
        part.append(line)
    yield part


def _part(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    below = textwrap.dedent("\n".join(lines[1:])).strip("\n")
    if lines[0] == "Example::":
        return f"```python\n{below}\n```"
    if _SECTION.match(lines[0]):
        return f"**{lines[0].removesuffix(':')}**\n\n" + "\n".join(_items(below))
    return _code(" ".join("\n".join(lines).split()))


def _items(text: str) -> Iterator[str]:
    for item in re.split(r"\n(?=\S)", text):
        words = " ".join(item.split())
        named = _ITEM.match(words)
        yield f"- `{named[1]}`: {_code(named[2])}" if named else f"- {_code(words)}"


def _code(text: str) -> str:
    return text.replace("``", "`").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def _page(*parts: str) -> str:
    """Return a page of some parts, with a note of where it comes from at its end."""
    return "\n\n".join([*filter(None, parts), _NOTE]) + "\n"


def _signature(function: Any, name: str) -> str:
    text = f"def {name}{str(inspect.signature(function)).replace(chr(39), '')}"
    return f"```python\n{text.replace('collections.abc.', '').replace('typing.', '')}\n```"


def options_table(fields: Iterable[OptionField], preset: Mapping[str, object] | None = None) -> str:
    """Return options as a table: flag, type, default, help."""
    rows = []
    for field in fields:
        default = (preset or {}).get(field.name, field.default)
        kind = metavar(field).replace("|", " · ") or "yes or no"
        names = " ".join(f"`--{alias.replace('_', '-')}`" for alias in field.aliases)
        also = f" Also {names}." if names else ""
        shown = "**required**" if default is dataclasses.MISSING else _default(default)
        rows.append((f"`{field.flag}`", kind, shown, field.help.replace("<", "&lt;") + also + _bounds(field)))
    return table(("flag", "type", "default", ""), rows)


def _bounds(field: OptionField) -> str:
    said = [
        f"{words} {bound:g}"
        for words, bound in (("at least", field.minimum), ("above", field.above), ("at most", field.maximum))
        if bound is not None
    ]
    return f" ({', '.join(said)})" if said else ""


def _default(value: object) -> str:
    if value is None or value == ():
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{','.join(map(str, value)) if isinstance(value, tuple) else value}`"


def title(kind: str) -> str:
    """Return the heading of an extension point: ``position_scaling`` is ``Position scalings``."""
    return f"{kind.replace('_', ' ')}s".capitalize()


# --- extension points ---------------------------------------------------------------------------------------------


def point_page(spec_class: type[Spec], catalogue: Catalogue) -> str:
    """Return the page of an extension point."""
    own = [_own(provided.spec, provided.plugin) for provided in catalogue.of_kind(spec_class.kind)]
    return _page(
        f"# {title(spec_class.kind)}",
        markdown(spec_class.__doc__),
        _chosen(spec_class),
        "## Names",
        _names(spec_class, catalogue),
        *(part for part in own if part),
        "## Fields of the spec",
        _fields(spec_class),
        *_contracts(spec_class),
        "## What is checked",
        _checks(spec_class),
    )


def _checks(spec_class: type[Spec]) -> str:
    """Return what the contract of the kit asks, and what it can be told."""
    contract = CONTRACTS[spec_class.kind]
    begun = (
        f"`lmflow plugins check NAME` and `{contract.__name__}` of `lmflow_core.testing.contracts` "
        "([is my plugin right?](../../plugin-contracts.md)) try each of these:"
    )
    names = [name for name in dir(contract) if name.startswith("test_")]
    summaries = [(getattr(contract, name).__doc__ or name).strip().splitlines()[0] for name in names]
    told = inspect.cleandoc(contract.__doc__ or "").partition("\n\n")[2]
    return "\n\n".join(filter(None, (begun, "\n".join(f"* {summary}" for summary in summaries), markdown(told))))


def _chosen(spec_class: type[Spec]) -> str:
    hook = f"Declared by the hook `{spec_class.hook()}`."
    if spec_class.selector is None:
        return hook
    flag = "--" + spec_class.selector.name.replace("_", "-")
    where = ", ".join(
        f"`lmflow {command}`" + (f" (default `{default}`)" if default else "")
        for command, default in spec_class.selector.defaults.items()
    )
    return f"{hook} Chosen by `{flag}` of {where}: {spec_class.selector.help}"


def _names(spec_class: type[Spec], catalogue: Catalogue) -> str:
    rows = [
        (
            " ".join(f"`{name}`" for name in (provided.spec.name, *provided.spec.aliases)),
            provided.spec.summary,
            f"[{provided.plugin.distribution}](../plugins.md#{provided.plugin.distribution})",
        )
        for provided in catalogue.of_kind(spec_class.kind)
    ]
    return table(("name", "what it is", "plugin"), rows)


def _own(spec: Spec, plugin: PluginRecord) -> str:
    if spec.options is None:
        return ""
    return f"### Options of `{spec.name}`\n\nFrom {plugin.distribution}.\n\n{options_table(fields_of(spec.options))}"


def _fields(spec_class: type[Spec]) -> str:
    rows = []
    for field in dataclasses.fields(spec_class):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        shown = "**required**" if required else _plain_default(field.default)
        rows.append((f"`{field.name}`", f"`{field.type}`", shown))
    common = "Those that every spec has are described [here](index.md#what-every-spec-has)."
    return f"{common}\n\n{table(('field', 'type', 'default'), rows)}"


def _plain_default(value: object) -> str:
    return f"`{value!r}`"


def _contracts(spec_class: type[Spec]) -> Iterator[str]:
    """Yield the protocols of a contract's module, and the data between the two sides."""
    module = importlib.import_module(spec_class.__module__)
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    protocols = [each for each in classes if Protocol in each.__bases__ or getattr(each, "_is_protocol", False)]
    first = [each for each in protocols if each is spec_class.contract]
    for protocol in [*first, *(each for each in protocols if each not in first)]:
        yield from _described(protocol)
    rest = [each for each in classes if each not in protocols and not issubclass(each, Spec)]
    for each in rest:
        if not each.__name__.startswith("_"):
            yield from _described(each)


def _described(described: type) -> Iterator[str]:
    """Yield a class and each of its public methods, with signature and docstring."""
    yield f"## `{described.__name__}`"
    yield markdown(described.__doc__)
    for name, member in vars(described).items():
        function = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(function) or (name.startswith("_") and name != "__call__"):
            continue
        if function.__module__ != described.__module__:
            continue
        yield f"### `{described.__name__}.{name}`"
        yield ("Read as an attribute.\n\n" if isinstance(member, property) else "") + _signature(function, name)
        yield markdown(function.__doc__)


def points_index(catalogue: Catalogue) -> str:
    """Return the page that lists the extension points."""
    rows = [
        (
            f"[{title(spec_class.kind)}]({spec_class.kind}.md)",
            f"`{spec_class.hook()}`",
            _first_sentence(spec_class),
            str(len(list(catalogue.of_kind(spec_class.kind)))),
        )
        for spec_class in SPEC_CLASSES
    ]
    return _page(
        "# Extension points",
        "What a plugin can add. Each is declared by a spec, which a hook gives, and done by the spec's `target`. "
        f"The present `API_LEVEL` is {api.API_LEVEL}.",
        table(("point", "hook", "spec", "names"), rows),
        "## What every spec has",
        markdown(Spec.__doc__),
    )


def _first_sentence(spec_class: type[Spec]) -> str:
    return markdown((spec_class.__doc__ or "").strip().splitlines()[0])


# --- commands -----------------------------------------------------------------------------------------------------


def command_page(name: str, summary: str, catalogue: Catalogue) -> str:
    """Return the page of a command."""
    context = click.Context(cli, obj=catalogue)
    command = cli.get_command(context, name)
    if command is None:
        raise LookupError(name)
    head = (f"# lmflow {name}",)
    if isinstance(command, SchemaCommand):
        return _page(*head, command.help or summary, *_schema_parts(command, catalogue))
    return _page(*head, *_click_parts(f"lmflow {name}", command))


def _schema_parts(command: SchemaCommand, catalogue: Catalogue) -> Iterator[str]:
    usage = " [RUN.yaml]" if command.run_file else ""
    yield f"```text\nlmflow {command.name}{usage} [OPTIONS]\n```"
    if command.run_file:
        yield "Options may stand in a [run file](../run-file.md), which flags override."
    yield from _settings_parts(command.schema, command.preset, catalogue)
    for option, schema in command.schema.instead.items():
        yield f"## With --{option.replace('_', '-')}"
        beside = " beside the model" if ModelSettings in schema.settings else ""
        yield f"What `lmflow {schema.name}` takes{beside}, in the place of the other options:"
        parts = _settings_parts(schema, {}, catalogue, told=command.schema.settings)
        yield from (f"#{part}" if part.startswith("## ") else part for part in parts)
    yield "## Switches"
    yield ", ".join(f"`--{switch}`" for switch in (*command.switches, "help"))


def _settings_parts(
    schema: Schema, preset: Mapping[str, object], catalogue: Catalogue, *, told: Sequence[type] = ()
) -> Iterator[str]:
    for settings in (s for s in schema.settings if not s.__name__.endswith("Choices") and s not in told):
        yield f"## {_heading(settings)}"
        yield options_table(fields_of(settings), preset)
    if schema.selectors:
        yield "## Components"
        yield "Each of these takes a name; the options of what is chosen join the command."
        yield _selectors(schema, preset, catalogue)


def _heading(settings: type) -> str:
    return (inspect.getdoc(settings) or settings.__name__).splitlines()[0].partition(".")[0]


def _selectors(schema: Schema, preset: Mapping[str, object], catalogue: Catalogue) -> str:
    fields = {field.name: field for settings in schema.settings for field in fields_of(settings)}
    rows = []
    for selector, kind in schema.selectors.items():
        field = fields[selector]
        names = ", ".join(f"`{provided.spec.name}`" for provided in catalogue.of_kind(kind))
        default = preset.get(selector, field.default)
        link = f"[{title(kind)}](../points/{kind}.md)"
        rows.append((f"`{field.flag}`", link, _default(default), f"{field.help} {names}"))
    return table(("flag", "chooses", "default", ""), rows)


def _click_parts(path: str, command: click.Command) -> Iterator[str]:
    arguments = " ".join(part.make_metavar(click.Context(command)) for part in command.params
                         if isinstance(part, click.Argument))  # fmt: skip
    group = isinstance(command, click.Group)
    rest = " ".join(filter(None, ("[OPTIONS]", "[COMMAND]" if group else "", arguments)))
    yield f"```text\n{path} {rest}\n```"
    yield markdown(command.help)
    rows = [
        (
            ", ".join(f"`{name}`" for name in part.opts),
            _click_type(part),
            _click_default(part),
            part.help or "",
        )
        for part in command.params
        if isinstance(part, click.Option)
    ]
    if rows:
        yield table(("flag", "type", "default", ""), rows)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield f"## {path} {name}"
            yield from _click_parts(f"{path} {name}", below)


def _click_type(part: click.Option) -> str:
    if part.is_flag:
        return "yes or no"
    if isinstance(part.type, click.Choice):
        return " · ".join(map(str, part.type.choices))
    return part.type.name.upper()


def _click_default(part: click.Option) -> str:
    if part.required:
        return "**required**"
    if part.is_flag:
        return "no"
    return f"`{part.default}`" if isinstance(part.default, str | int | float) else "—"


def commands_index(catalogue: Catalogue) -> str:
    """Return the page that lists the commands."""
    rows = [(f"[lmflow {name}]({name}.md)", summary, provider) for name, summary, provider in _commands(catalogue)]
    everywhere = [
        (", ".join(f"`{name}`" for name in part.opts), part.help or "")
        for part in cli.params
        if isinstance(part, click.Option)
    ]
    return _page(
        "# Commands",
        table(("command", "what it does", "from"), rows),
        "## In front of every command",
        table(("flag", ""), everywhere),
    )


def _commands(catalogue: Catalogue) -> Iterator[tuple[str, str, str]]:
    for name, (_, summary) in CORE_COMMANDS.items():
        yield name, summary, "the core"
    for provided in catalogue.of(CommandSpec):
        yield provided.spec.name, provided.spec.summary, provided.plugin.distribution


# --- the rest -----------------------------------------------------------------------------------------------------


def run_file_page(catalogue: Catalogue) -> str:
    """Return the page of run files: every key of ``lmflow finetune``."""
    keys = [(field.name, _heading(settings)) for settings in FINETUNE.settings for field in fields_of(settings)]
    rows = [(f"`{key}`", "" if where.startswith("FinetuneChoices") else where) for key, where in keys]
    owned = [
        (", ".join(f"`{field.name}`" for field in fields_of(provided.spec.options)),
         f"{kind.replace('_', ' ')} [`{provided.spec.name}`](points/{kind}.md)")
        for kind in FINETUNE.selectors.values()
        for provided in catalogue.of_kind(kind)
        if provided.spec.options is not None
    ]  # fmt: skip
    takes = ["`lmflow finetune`"]
    takes += [f"`lmflow {provided.spec.name}`" for provided in catalogue.of(CommandSpec) if provided.spec.finetunes]
    return _page(
        "# Run files",
        f"A run file is YAML that maps option names to values; {' and '.join(takes)} take one as the first argument. "
        "A key is the flag without its dashes at the front, with `_` or `-` within: `--lora-r 16` is `lora_r: 16`. "
        "Flags override it. Lists are YAML lists or texts with commas. Aliases, tags and keys that stand twice are "
        "refused, and so is a key that no option has.",
        "The `run.json` that every run leaves in its output is a run file, too: it makes the same run again.",
        "## Keys",
        "Types, defaults and meaning are those of the flags of [lmflow finetune](commands/finetune.md).",
        table(("key", "what it is about"), rows),
        "## Keys of components",
        "They count while the component is chosen.",
        table(("keys", "of"), owned),
    )


def exit_statuses_page() -> str:
    """Return the page of exit statuses, with every error by the status that it ends with."""
    rows = [
        ("0", "done"),
        ("1", "the work failed, or a plugin or the core did what nobody expects"),
        ("2", "the request was wrong: a flag, a file, a name or data; nothing was begun"),
        ("130", "interrupted with Ctrl-C"),
    ]
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, LmflowError)]
    named = [(f"`{each.__name__}`", str(each.exit_status), markdown(each.__doc__).splitlines()[0]) for each in kinds]
    return _page(
        "# Exit statuses",
        "A command writes its result to standard output and everything else, errors too, to standard error.",
        table(("status", "meaning"), rows),
        "## Errors",
        "An error says what is wrong, where, and how to mend it. In code each is one of these classes of "
        "`lmflow_core.api` or of the core; the status belongs to the class.",
        table(("class", "status", "meaning"), named),
    )


def plugins_page(plugins: PluginSet) -> str:
    """Return the directory of plugins."""
    records = {record.distribution: record for record in plugins.records}
    parts: list[str] = []
    for kind, words in (("plugins", "Official plugins"), ("contrib", "Contributed plugins")):
        parts.append(f"## {words}")
        for path in sorted(_ROOT.glob(f"{kind}/*/pyproject.toml")):
            parts.append(_plugin(path, records[path.parent.name]))
    return _page(
        "# Directory of plugins",
        "Every plugin of this repository: what it provides and what it needs. Those under *contributed* are written "
        "against the public interface alone, as a third party would. `lmflow plugins` lists what is installed.",
        *parts,
    )


def _plugin(path: Path, record: PluginRecord) -> str:
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    lines = [
        f"- {title(kind)}: " + ", ".join(f"[`{name}`](points/{kind}.md)" if len(names) < 12 else f"`{name}`"
                                         for name in names)
        for kind, names in record.provides().items()
    ]  # fmt: skip
    lines.append("- Needs: " + ", ".join(f"`{each}`" for each in project.get("dependencies", ())))
    extras = project.get("optional-dependencies", {})
    lines += [f"- `[{extra}]` adds: " + ", ".join(f"`{each}`" for each in extras[extra]) for extra in extras]
    readme = f"../../{path.parent.relative_to(_ROOT).as_posix()}/README.md"
    about = f"{project['description']} Version {project['version']}. [More]({readme})"
    return f"### {project['name']}\n\n{about}\n\n" + "\n".join(lines)


def pages(plugins: PluginSet) -> dict[str, str]:
    """Return every page of the reference by its path in ``docs/reference``."""
    catalogue = Catalogue(plugins)
    found = {
        "points/index.md": points_index(catalogue),
        "commands/index.md": commands_index(catalogue),
        "run-file.md": run_file_page(catalogue),
        "exit-statuses.md": exit_statuses_page(),
        "plugins.md": plugins_page(plugins),
    }
    found |= {f"points/{each.kind}.md": point_page(each, catalogue) for each in SPEC_CLASSES}
    found |= {f"commands/{name}.md": command_page(name, said, catalogue) for name, said, _ in _commands(catalogue)}
    return found


def stale(found: Mapping[str, str]) -> list[str]:
    """Return the pages that differ from what is written, are missing, or should not be there."""
    written = {path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.md")}
    return sorted(name for name in {*found, *written} if found.get(name) != written.get(name))


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    checking = parser.parse_args().check
    found = pages(known_plugins())
    differing = stale(found)
    if checking and differing:
        sys.exit(f"docs/reference is out of date ({', '.join(differing)}): run python dev/reference.py")
    for name in differing:
        path = FOLDER / name
        if name in found:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found[name], encoding="utf-8")
        else:
            path.unlink()


if __name__ == "__main__":
    main()
