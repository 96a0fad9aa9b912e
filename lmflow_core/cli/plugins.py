"""``lmflow plugins``: what is loaded, what is not, and why."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import click

import lmflow_core
from lmflow_core.cli.results import print_json
from lmflow_core.contracts.hooks import KINDS
from lmflow_core.errors import OptionError, UnknownNameError, suggestion
from lmflow_core.plugins.policy import short_name
from lmflow_core.plugins.record import PluginRecord
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console

SCHEMA = 1
_WIDTH, _LEAST = 100, 30


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--kind", type=click.Choice(sorted(KINDS)), help="List the names of one kind instead.")
@click.option("--check", is_flag=True, help="Exit with status 1 when a plugin is unhealthy or a name contested.")
@click.option("--timings", is_flag=True, help="Show how long each plugin took to load.")
@click.option("--locations", is_flag=True, help="Show where each plugin was loaded from.")
@click.pass_context
def plugins(ctx: click.Context, as_json: bool, kind: str | None, check: bool, timings: bool, locations: bool) -> None:
    """List the plugins and how much each provides; ``show NAME`` tells the names."""
    if ctx.invoked_subcommand is not None:
        return
    catalogue: Catalogue = ctx.obj
    if as_json:
        print_json(as_document(catalogue))
    elif kind:
        console.show(_names_of_kind(catalogue, kind))
    else:
        console.show(_listing(catalogue, timings, locations))
    for warning in catalogue.plugins.warnings:
        console.note(warning)
    if check and (catalogue.plugins.unhealthy() or catalogue.conflicts()):
        ctx.exit(1)


@plugins.command()
@click.argument("name")
@click.pass_obj
def show(catalogue: Catalogue, name: str) -> None:
    """Show one plugin: where it is, what it provides, and the traceback when it is broken."""
    for record in _records_of(catalogue, name):
        console.show(_described(record))


@plugins.command()
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(["plugin", *sorted(KINDS)]), help="Check this kind only, or the plugin itself."
)
@click.option("--option", "-o", multiple=True, metavar="NAME=VALUE", help="A value for an option; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def check(ctx: click.Context, name: str, kind: str | None, option: tuple[str, ...], as_json: bool) -> None:
    """Hold a plugin and all it provides to their contracts."""
    from lmflow_core.cli.checking import check_plugin

    record = _records_of(ctx.obj, name)[0]
    values = dict(_pair(text) for text in option)
    ctx.exit(0 if check_plugin(record.name, kind, values, as_json=as_json) else 1)


@plugins.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(sorted(KINDS)), required=True, help="What it provides.")
@click.option("--directory", type=click.Path(path_type=Path), help="Folder to write; lmflow-NAME when left out.")
@click.pass_obj
def new(catalogue: Catalogue, name: str, kind: str, directory: Path | None) -> None:
    """Write the folder of a new plugin, which works, and says what to change."""
    from lmflow_core.scaffold.project import write_project

    folder = directory or Path(f"lmflow-{name}")
    for path in write_project(name, kind, folder, catalogue):
        console.show(folder / path)
    console.show(f"\nNext: pip install -e {folder}")
    console.show(f"then: lmflow plugins check {name}")
    console.show(f"and:  see {folder / 'README.md'} for what to change")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise OptionError(f"--option {text}: write NAME=VALUE")
    return name.lstrip("-").replace("-", "_"), value


def _records_of(catalogue: Catalogue, name: str) -> list[PluginRecord]:
    """Return every record of a plugin's name.

    Raises:
        UnknownNameError: no such plugin is installed.
    """
    records = [record for record in catalogue.plugins.records if record.name == short_name(name)]
    if not records:
        known = [record.name for record in catalogue.plugins.records]
        raise UnknownNameError(
            f"no plugin {name!r} is installed.{suggestion(name, known)} Installed: {', '.join(known)}"
        )
    return records


def as_document(catalogue: Catalogue) -> dict[str, Any]:
    """Return the listing as a document; its shape carries a ``schema`` number."""
    return {
        "schema": SCHEMA,
        "core": {"version": lmflow_core.__version__, "python": sys.version.split()[0]},
        "plugins": [_as_entry(record) for record in catalogue.plugins.records],
        "conflicts": catalogue.conflicts(),
        "digest": catalogue.plugins.digest(),
    }


def _as_entry(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "status": record.status,
        "stage": record.stage,
        "error": record.error,
        "hooks": list(record.hooks),
        "provides": record.provides(),
        "location": record.location,
        "load_ms": record.load_ms,
        "heavy_imports": list(record.heavy_imports),
    }


def _listing(catalogue: Catalogue, timings: bool, locations: bool) -> str:
    last = "LOCATION" if locations else "PROVIDES"
    header = ["PLUGIN", "VERSION", "STATUS", *(["LOAD MS"] if timings else []), last]
    records = catalogue.plugins.records
    rows = [_row(record, timings, locations) for record in records]
    lines = [console.table(header, rows) if locations else _fitted(header, rows)]
    for conflict in catalogue.conflicts():
        lines.append(f"contested: {conflict['kind']} {conflict['name']!r}: use {' or '.join(conflict['providers'])}")  # type: ignore[arg-type]
    counts = Counter(record.status for record in records)
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    lines.append(f"{len(rows)} plugins: {summary or 'none'}.  Details: lmflow plugins show NAME")
    return "\n".join(lines)


def _fitted(header: list[str], rows: list[list[str]]) -> str:
    """Return a table that fits a terminal: what the last column has no room for goes on below."""
    before = sum(max(len(row[column]) for row in (header, *rows)) + 2 for column in range(len(header) - 1))
    fitted: list[list[str]] = []
    for *cells, last in rows:
        first, *others = textwrap.wrap(last, max(_WIDTH - before, _LEAST), break_long_words=False) or [""]
        fitted += [[*cells, first], *([*("" for _ in cells), other] for other in others)]
    return console.table(header, fitted)


def _row(record: PluginRecord, timings: bool, locations: bool) -> list[str]:
    provides = _provides(record) if record.status == "ok" else f"{record.stage}: {record.error}"
    timing = [f"{record.load_ms:.1f}"] if timings else []
    return [record.name, record.version, record.status, *timing, (record.location or "?") if locations else provides]


def _provides(record: PluginRecord) -> str:
    counts = {kind.replace("_", " "): len(names) for kind, names in record.provides().items()}
    return ", ".join(f"{count} {kind}" if count == 1 else f"{count} {kind}s" for kind, count in counts.items())


def _names_of_kind(catalogue: Catalogue, kind: str) -> str:
    rows = [(p.spec.name, p.plugin.name, ", ".join(p.spec.aliases), p.spec.summary) for p in catalogue.of_kind(kind)]
    return console.table((kind.upper(), "PLUGIN", "ALIASES", "SUMMARY"), sorted(rows))


def _described(record: PluginRecord) -> str:
    lines = [
        ("plugin", record.name),
        ("distribution", f"{record.distribution} {record.version}"),
        ("status", record.status if record.status == "ok" else f"{record.status} at stage {record.stage}"),
        ("location", record.location or "?"),
        ("load time", f"{record.load_ms:.1f} ms"),
    ]
    if record.error:
        lines.append(("error", record.error))
    lines += [(f"{spec.kind} {spec.name}", spec.summary) for spec in record.specs]
    return console.pairs(lines) + (f"\n\n{record.details.rstrip()}" if record.details else "")
