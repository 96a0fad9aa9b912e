"""The entry point: the command group, and how errors end the program."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

import lmflow_core
from lmflow_core.cli.endings import told_ending
from lmflow_core.cli.given import GIVEN
from lmflow_core.contracts.command import CommandSpec
from lmflow_core.errors import OptionError, PluginLoadError
from lmflow_core.plugins.containment import end_process
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console

# name -> (module, summary): a module is imported only when its command runs.
CORE_COMMANDS = {
    "finetune": ("training", "Fine-tune a model on data."),
    "evaluate": ("evaluation", "Measure the NLL of data under a model, or what its answers are worth."),
    "generate": ("generation", "Answer one prompt, or a file of them."),
    "chat": ("generation", "Talk with a model."),
    "export": ("exporting", "Write a model in another form, its adapter merged."),
    "merge": ("exporting", "Merge an adapter into its model."),
    "data": ("data", "Check, preview and count data before training."),
    "plugins": ("plugins", "List the plugins and what each provides."),
    "templates": ("templates", "List the conversation templates or show one."),
    "doctor": ("doctor", "Tell versions, devices, and what is missing for what."),
}
_QUIET_COMMANDS = ("plugins", "doctor")


class LmflowGroup(click.Group):
    """Commands of the core and of plugins, none imported before it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the core's commands, then those of plugins."""
        catalogue: Catalogue = ctx.obj
        return [*CORE_COMMANDS, *catalogue.of(CommandSpec).names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        catalogue: Catalogue = ctx.obj
        if cmd_name not in _QUIET_COMMANDS:
            _report_unhealthy(catalogue)
        if cmd_name in CORE_COMMANDS:
            module = importlib.import_module(f"lmflow_core.cli.{CORE_COMMANDS[cmd_name][0]}")
            command: click.Command = getattr(module, cmd_name)
            return command
        if cmd_name in catalogue.of(CommandSpec) or ":" in cmd_name:
            return _command_of_plugin(catalogue, cmd_name)
        raise click.UsageError(self._unknown(catalogue, cmd_name), ctx)

    def _unknown(self, catalogue: Catalogue, name: str) -> str:
        from lmflow_core.errors import UnknownNameError, suggestion
        from lmflow_core.plugins.official import official_names

        if name in official_names().get("command", {}):
            try:
                catalogue.of(CommandSpec).find(name)
            except UnknownNameError as error:
                return str(error)
        return f"No such command {name!r}.{suggestion(name, (*CORE_COMMANDS, *catalogue.of(CommandSpec).names()))}"

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their summaries, without importing any."""
        catalogue: Catalogue = ctx.obj
        rows = [(name, summary) for name, (_, summary) in CORE_COMMANDS.items()]
        rows += [(p.spec.name, f"{p.spec.summary} ({p.plugin.name})") for p in catalogue.of(CommandSpec)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LmflowGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lmflow_core.__version__, prog_name="lmflow")
@click.option("--no-plugin", multiple=True, metavar="NAME", help="Do not load this plugin; may be repeated.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(no_plugin: tuple[str, ...], debug: bool) -> None:
    """Fine-tune large language models and put them to work."""


def _command_of_plugin(catalogue: Catalogue, name: str) -> click.Command:
    command = catalogue.of(CommandSpec).load(name)
    spec = catalogue.of(CommandSpec).spec(name)
    if spec.chats and callable(command):
        from lmflow_core.cli.generation import chat_command

        return chat_command(spec, command)
    if spec.finetunes and isinstance(command, dict):
        from lmflow_core.cli.training import finetuning_command

        return finetuning_command(spec, command)
    if not isinstance(command, click.Command):
        wanted = "function" if spec.chats else "dictionary" if spec.finetunes else "click command"
        raise PluginLoadError(f"command {name!r}: its target {spec.target} is no {wanted}")
    return command


def _report_unhealthy(catalogue: Catalogue) -> None:
    for record in catalogue.plugins.unhealthy():
        console.note(
            f"plugin {record.name} is {record.condition} ({record.error}); see 'lmflow plugins show {record.name}'"
        )
    for warning in catalogue.plugins.warnings:
        console.note(warning)


def _take_global_options(arguments: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """Split off ``--no-plugin NAME`` and ``--debug`` wherever they stand.

    Raises:
        OptionError: ``--no-plugin`` comes last, without a name.
    """
    rest: list[str] = []
    disabled: list[str] = []
    debug = False
    tokens = iter(arguments)
    for token in tokens:
        name, equals, value = token.replace("_", "-", 2).partition("=")
        if name == "--no-plugin":
            disabled.append(value if equals else next(tokens, ""))
        elif token == "--debug":
            debug = True
        else:
            rest.append(token)
    if not all(disabled):
        raise OptionError("--no-plugin needs the name of a plugin")
    return rest, disabled, debug


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status: 0 done, 1 the work failed, 2 the request was wrong."""
    debug = False
    rest: list[str] = []
    catalogue = Catalogue(PluginSet(()))
    GIVEN.set(tuple(arguments))
    try:
        rest, disabled, debug = _take_global_options(arguments)
        catalogue = Catalogue(load_plugins(PluginPolicy.from_environment(no_plugin=disabled)))
        status = cli.main(rest, prog_name="lmflow", obj=catalogue, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BaseException as error:
        # A command of a plugin may exit with a status of its own.
        exits = isinstance(error, SystemExit) and rest[0] not in CORE_COMMANDS
        ended = None if exits else told_ending(error, catalogue.plugins, debug)
        if ended is None:
            raise
        return ended


def main() -> None:
    """Run the command line of this process."""
    end_process(run(sys.argv[1:]))
