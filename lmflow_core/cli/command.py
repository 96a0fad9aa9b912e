"""Commands whose options depend on the components that are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from lmflow_core.cli.flags import Arguments, FlagParser, help_rows, instead_rows, with_run_file
from lmflow_core.config.request import Request, resolve
from lmflow_core.config.schema import Schema
from lmflow_core.errors import OptionError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console

# What a command does; where it ends with an exit status of its own, it returns it.
Run = Callable[[Request, Catalogue, Arguments], int | None]


class SchemaCommand(click.Command):
    """A command that hands its raw arguments to a :class:`FlagParser`.

    Attributes:
        schema: what it takes.
        run_file: whether a run file may come first.
        switches: flags of the command line itself, which have no value.
        preset: values that it has in place of the schema's defaults.
    """

    def __init__(
        self,
        schema: Schema,
        run: Run,
        *,
        summary: str,
        run_file: bool = False,
        switches: Sequence[str] = (),
        preset: Mapping[str, object] | None = None,
    ):
        super().__init__(schema.name, add_help_option=False, help=summary)
        self.schema = schema
        self._run = run
        self.run_file = run_file
        self.switches = ("json", *switches)
        self.preset = dict(preset or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are; :meth:`invoke` parses them."""
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> int | None:
        """Parse, check and run; or show the help for the chosen components."""
        catalogue: Catalogue = ctx.obj
        schema = self._schema_for(ctx.args)
        parser = FlagParser(schema, catalogue, self.switches, run_file=self.run_file)
        parsed = parser.parse(ctx.args)
        if self.run_file:
            values = with_run_file(parsed, parser)
        elif parsed.positional:
            raise OptionError(f"unexpected argument {parsed.positional[0]!r} of 'lmflow {schema.name}'")
        else:
            values = parsed.values
        values = {**self.preset, **values}
        if "help" in parsed.switches:
            console.show(self._help_text(schema, values, catalogue))
            return None
        return self._run(resolve(schema, values, catalogue), catalogue, parsed)

    def _schema_for(self, arguments: Sequence[str]) -> Schema:
        """Return the schema that the options which are given decide."""
        given = {argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument[:2] == "--"}
        return next((other for option, other in self.schema.instead.items() if option in given), self.schema)

    def _help_text(self, schema: Schema, values: dict[str, Any], catalogue: Catalogue) -> str:
        formatter = click.HelpFormatter(width=110)
        usage = "[RUN.yaml] [OPTIONS]" if self.run_file else "[OPTIONS]"
        formatter.write_usage(f"lmflow {schema.name}", usage)
        formatter.write_paragraph()
        formatter.write_text(self.help or "")
        with formatter.section("Options"):
            rows = [*help_rows(schema, values, catalogue), *instead_rows(schema)]
            rows += [(f"--{switch}", _SWITCH_HELP.get(switch, "")) for switch in self.switches]
            formatter.write_dl([*rows, ("-h, --help", "Show this; with components chosen, their options too.")])
        return formatter.getvalue().rstrip()


_SWITCH_HELP = {"json": "Print one JSON document on stdout."}
