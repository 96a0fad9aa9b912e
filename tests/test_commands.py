"""The command group: commands of plugins, global flags, listings, and how errors end the program."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import lmflow_core
from lmflow_core.cli import main
from lmflow_core.errors import LmflowError
from lmflow_core.plugins import discovery, registry
from lmflow_core.testing.fixtures import CliResult

Install = Callable[..., EntryPoint]
Cli = Callable[..., CliResult]

COMMANDS = """
from lmflow_core.api import CommandSpec, hookimpl

def _command(name, attribute, *aliases):
    return CommandSpec(name=name, target=f"{__name__}:{attribute}", summary=f"Runs {name}.", aliases=aliases)

@hookimpl
def lmflow_register_commands():
    return [_command("greet", "greet", "hello"), _command("odd", "odd"), _command("fail", "fail")]

def odd():
    pass

def __getattr__(name):
    import click
    from lmflow_core.api import LmflowError

    @click.command(name)
    @click.argument("who", default="nobody")
    def command(who):
        if name == "fail":
            raise LmflowError(f"{who} failed")
        print(f"hello {who}")

    if name in ("greet", "fail"):
        return command
    raise AttributeError(name)
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The plugins that are installed: those a test puts into this list."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(discovery, "installed_entry_points", lambda: entries)
    for name in ("LMFLOW_PLUGINS", "LMFLOW_DISABLE_PLUGINS", "LMFLOW_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    return entries


@pytest.fixture
def greeter(installed: list[EntryPoint], install_plugin: Install) -> None:
    """A plugin with commands is installed, and one that is broken."""
    installed += [install_plugin("greeter", COMMANDS), install_plugin("bad", "import no_such_module")]


NOTE = "lmflow: plugin bad is broken (ModuleNotFoundError: No module named 'no_such_module'); "
NOTE += "see 'lmflow plugins show bad'\n"


@pytest.mark.parametrize("name", ["greet", "hello", "greeter:greet"])
@pytest.mark.usefixtures("greeter")
def test_a_command_of_a_plugin_runs(lmflow_cli: Cli, name: str) -> None:
    assert lmflow_cli(name, "world") == CliResult(0, "hello world\n", NOTE)


@pytest.mark.usefixtures("greeter")
def test_commands_of_plugins_are_listed_with_their_plugin(lmflow_cli: Cli) -> None:
    result = lmflow_cli("--help")
    assert result.status == 0
    assert "  greet      Runs greet. (greeter)\n" in result.stdout
    assert "  finetune   Fine-tune a model on data.\n" in result.stdout
    assert result.stderr == ""


@pytest.mark.usefixtures("greeter")
def test_a_command_that_is_none_is_an_error(lmflow_cli: Cli) -> None:
    message = "lmflow: error: command 'odd': its target fake_lmflow_greeter:odd is no click command\n"
    assert lmflow_cli("odd") == CliResult(2, "", NOTE + message)


@pytest.mark.usefixtures("greeter")
def test_a_failure_costs_one_line_and_a_traceback_only_when_asked_for(lmflow_cli: Cli) -> None:
    assert lmflow_cli("fail", "it") == CliResult(1, "", NOTE + "lmflow: error: it failed\n")
    result = lmflow_cli("fail", "it", "--debug")
    assert result.status == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert result.stderr.endswith("lmflow: error: it failed\n")
    assert LmflowError("x").exit_status == 1


def test_a_contested_command_is_an_error_and_qualified_it_runs(
    lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install
) -> None:
    installed += [install_plugin("greeter", COMMANDS), install_plugin("rival", COMMANDS)]
    result = lmflow_cli("greet")
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr == (
        "lmflow: error: command 'greet' is provided by 'greeter' (lmflow-greeter 1.0) and 'rival' (lmflow-rival 1.0). "
        "Use 'greeter:greet' or 'rival:greet', or disable one: --no-plugin rival\n"
    )
    assert lmflow_cli("rival:greet") == CliResult(0, "hello nobody\n", "")
    assert lmflow_cli("--no-plugin", "rival", "greet") == CliResult(0, "hello nobody\n", "")
    assert lmflow_cli("greet", "you", "--no_plugin=lmflow-rival") == CliResult(0, "hello you\n", "")


def test_a_plugin_cannot_take_a_command_of_the_core(
    lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install
) -> None:
    installed.append(install_plugin("thief", COMMANDS.replace('"greet", "greet"', '"plugins", "greet"')))
    (entry,) = lmflow_cli("plugins", "--json").json()["plugins"]
    assert (entry["status"], entry["stage"]) == ("broken", "collect")
    assert entry["error"] == "SpecError: the command name 'plugins' is reserved for the core"


def test_an_unknown_command_is_answered_by_its_cause(
    lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch, installed: list[EntryPoint], install_plugin: Install
) -> None:
    monkeypatch.setattr(registry, "official_names", lambda: {"command": {"serve": "lmflow-serve"}})
    installed.append(install_plugin("greeter", COMMANDS))
    absent = (
        "unknown command 'serve'. "
        "It is provided by lmflow-serve, not installed: in a checkout of LMFlow, pip install ./plugins/lmflow-serve"
    )
    answers = {
        "serve": absent,
        "gret": "No such command 'gret'. Did you mean 'greet'?",
        "finetun": "No such command 'finetun'. Did you mean 'finetune'?",
        "xyzzy": "No such command 'xyzzy'.",
    }
    for name, answer in answers.items():
        result = lmflow_cli(name)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr.splitlines()[-1] == f"Error: {answer}"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("could not create a primitive")])
def test_memory_that_ran_out_is_told(
    lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch, installed: list[EntryPoint], error: Exception
) -> None:
    raised = [RuntimeError("another"), error]

    def fail(*_: object, **__: object) -> None:
        raise raised.pop()

    assert installed == []
    monkeypatch.setattr(main.cli, "main", fail)
    result = lmflow_cli("doctor")
    assert result.status == 1
    assert result.stderr.startswith("lmflow: error: memory ran out: ")
    with pytest.raises(RuntimeError, match="another"):
        lmflow_cli("doctor")


def test_a_missing_name_of_a_plugin_is_an_error(lmflow_cli: Cli, installed: list[EntryPoint]) -> None:
    message = "lmflow: error: --no-plugin needs the name of a plugin\n"
    assert installed == []
    assert lmflow_cli("plugins", "--no-plugin") == CliResult(2, "", message)
    assert lmflow_cli("plugins", "--no-plugin=") == CliResult(2, "", message)


def test_a_name_that_matches_no_plugin_is_told(
    lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install
) -> None:
    installed.append(install_plugin("greeter", COMMANDS))
    warning = "lmflow: --no-plugin names the plugin 'greter', which is not installed. Did you mean 'greeter'?\n"
    assert lmflow_cli("greet", "--no-plugin", "greter") == CliResult(0, "hello nobody\n", warning)
    assert lmflow_cli("plugins", "--no-plugin", "greter").stderr == warning


@pytest.mark.usefixtures("greeter")
def test_the_listing_for_people(lmflow_cli: Cli) -> None:
    result = lmflow_cli("plugins", "--no-plugin", "greeter")
    assert result == CliResult(
        0,
        "PLUGIN   VERSION  STATUS    PROVIDES\n"
        "bad      1.0      broken    import: ModuleNotFoundError: No module named 'no_such_module'\n"
        "greeter  1.0      disabled  disabled: disabled by --no-plugin\n"
        "2 plugins: 1 broken, 1 disabled.  Details: lmflow plugins show NAME\n",
        "",
    )
    assert lmflow_cli("plugins").stdout.splitlines()[2] == "greeter  1.0      ok      3 commands"
    assert lmflow_cli("plugins", "--locations").stdout.splitlines()[2].endswith("/fake_lmflow_greeter.py")
    assert lmflow_cli("plugins", "--kind", "command").stdout == (
        "COMMAND  PLUGIN   ALIASES  SUMMARY\n"
        "fail     greeter           Runs fail.\n"
        "greet    greeter  hello    Runs greet.\n"
        "odd      greeter           Runs odd.\n"
    )


@pytest.mark.usefixtures("greeter")
def test_the_listing_for_programs(lmflow_cli: Cli) -> None:
    document = lmflow_cli("plugins", "--json").json()
    assert document["schema"] == 1
    assert document["core"]["version"] == lmflow_core.__version__
    assert document["conflicts"] == []
    bad, good = document["plugins"]
    assert bad.pop("load_ms") >= 0
    assert bad.pop("location").endswith("lmflow_bad-1.0.dist-info")
    assert bad == {
        "name": "bad",
        "distribution": "lmflow-bad",
        "version": "1.0",
        "status": "broken",
        "stage": "import",
        "error": "ModuleNotFoundError: No module named 'no_such_module'",
        "hooks": [],
        "provides": {},
        "heavy_imports": [],
    }
    assert good["provides"] == {"command": ["greet", "odd", "fail"]}
    assert good["hooks"] == ["lmflow_register_commands"]


def test_check_tells_by_its_status_whether_anything_is_wrong(
    lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install
) -> None:
    installed.append(install_plugin("greeter", COMMANDS))
    assert lmflow_cli("plugins", "--check").status == 0
    installed.append(install_plugin("rival", COMMANDS))
    contested = lmflow_cli("plugins", "--check")
    assert contested.status == 1
    assert "contested: command 'greet': use greeter:greet or rival:greet\n" in contested.stdout
    assert lmflow_cli("plugins", "--check", "--no-plugin", "rival").status == 0
    installed[-1] = install_plugin("bad", "import no_such_module")
    assert lmflow_cli("plugins", "--check").status == 1
    assert lmflow_cli("plugins").status == 0


@pytest.mark.usefixtures("greeter")
def test_one_plugin_is_shown_with_its_traceback(lmflow_cli: Cli) -> None:
    shown = lmflow_cli("plugins", "show", "lmflow-bad")
    assert shown.status == 0
    lines = shown.stdout.splitlines()
    assert lines[:3] == [
        "plugin        bad",
        "distribution  lmflow-bad 1.0",
        "status        broken at stage import",
    ]
    assert lines[-1] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "command greet  Runs greet." in lmflow_cli("plugins", "show", "greeter").stdout
    assert lmflow_cli("plugins", "show", "greter") == CliResult(
        2, "", "lmflow: error: no plugin 'greter' is installed. Did you mean 'greeter'? Installed: bad, greeter\n"
    )


@pytest.mark.usefixtures("greeter")
def test_strict_mode_ends_every_command(lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFLOW_STRICT_PLUGINS", "1")
    message = (
        "lmflow: error: LMFLOW_STRICT_PLUGINS is set and not every plugin is healthy: "
        "bad (import: ModuleNotFoundError: No module named 'no_such_module')\n"
    )
    assert lmflow_cli("greet") == CliResult(2, "", message)
    assert lmflow_cli("greet", "--no-plugin", "bad") == CliResult(0, "hello nobody\n", "")


def test_an_interrupt_ends_with_its_own_status(lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "load_plugins", interrupt)
    assert lmflow_cli("plugins") == CliResult(130, "", "lmflow: interrupted\n")


FAILING = """
import click
from lmflow_core.api import CommandSpec, DatasetSpec, hookimpl

@hookimpl
def lmflow_register_commands():
    return [CommandSpec(name="burst", target=f"{__name__}:burst", summary="Fails.")]

@hookimpl
def lmflow_register_datasets():
    return [DatasetSpec(name="odd-rows", target=f"{__name__}:OddRows", summary="Fails.", fields="odd")]

@click.command("burst")
def burst():
    FAILURE

class OddRows:
    def recognises(self, row):
        return "odd" in row

    def read(self, row):
        FAILURE
"""
RAISED = {
    "raise TypeError('bad value')": "TypeError: bad value",
    "raise BaseException": "BaseException",
    "raise GeneratorExit": "GeneratorExit",
    "raise BaseExceptionGroup('many', [BaseException()])": "BaseExceptionGroup: many (1 sub-exception)",
    "raise type('E', (Exception,), {'__str__': lambda _: 1 / 0})": "E: (no message: ZeroDivisionError in its __str__)",
}


def _blame(cause: str) -> str:
    return (
        f"lmflow: error: plugin 'failing' (lmflow-failing 1.0) failed: {cause}. --debug shows where; --no-plugin "
        "failing leaves it out\n"
    )


@pytest.mark.parametrize("line", RAISED)
def test_a_plugin_that_fails_as_none_should_is_named(
    lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install, line: str
) -> None:
    installed.append(install_plugin("failing", FAILING.replace("FAILURE", line)))
    assert lmflow_cli("burst") == CliResult(1, "", _blame(RAISED[line]))
    traced = lmflow_cli("burst", "--debug")
    assert "in burst" in traced.stderr
    assert traced.stderr.endswith(_blame(RAISED[line]))


@pytest.mark.parametrize("line", [*RAISED, "raise SystemExit(0)"])
def test_rows_that_a_plugin_fails_to_read_are_no_success(
    lmflow_cli: Cli,
    installed: list[EntryPoint],
    install_plugin: Install,
    write_rows: Callable[..., Path],
    line: str,
) -> None:
    source = FAILING.replace("FAILURE", line).replace("@hookimpl\ndef lmflow_register_commands", "def no_hook")
    installed.append(install_plugin("failing", source))
    result = lmflow_cli("data", "check", write_rows([{"odd": 1}]), "--dataset-format", "odd-rows")
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == _blame(RAISED.get(line, "SystemExit: 0"))


def test_a_command_of_a_plugin_may_exit(lmflow_cli: Cli, installed: list[EntryPoint], install_plugin: Install) -> None:
    installed.append(install_plugin("failing", FAILING.replace("FAILURE", "raise SystemExit(3)")))
    with pytest.raises(SystemExit) as ended:
        lmflow_cli("burst")
    assert ended.value.code == 3
