"""The contract of commands: their help, their flags, and that they change nothing before they are asked to work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import click
import pytest

from lmflow_core.config.schema import CHAT, FINETUNE
from lmflow_core.contracts.command import ChatCommand, CommandSpec
from lmflow_core.errors import LmflowError
from lmflow_core.options import OptionField, fields_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.fitting import misfits

# Taken by lmflow itself, wherever they stand on the command line.
_TAKEN = ("--debug", "--no-plugin")
_UNKNOWN = "--no-such-flag-anywhere"
_RUN = """
import json, sys
from lmflow_core.cli.main import run

status = run(json.loads(sys.argv[1]))
sys.stdout.flush()
print("\\n" + json.dumps({"status": status, "torch": "torch" in sys.modules}), file=sys.stderr)
"""


@dataclass(frozen=True)
class Called:
    """A command line that was run in a process of its own, in an empty folder: what it wrote and left there."""

    status: int
    stdout: str
    stderr: str
    torch: bool
    left: tuple[str, ...]


class CommandContract(ComponentContract):
    """What a command of a plugin must do before it does its work, which its own tests are about."""

    kind: ClassVar[str] = "command"

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return the target: the command itself, or what one is made from."""
        return target

    @pytest.fixture(scope="class")
    @classmethod
    def call(cls, spec: CommandSpec, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Called]:
        """Return what runs the command with some arguments."""

        def run(*arguments: str) -> Called:
            folder = tmp_path_factory.mktemp("called")
            command = [sys.executable, "-c", _RUN, json.dumps([spec.name, *arguments])]
            finished = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
            *told, last = finished.stderr.rstrip("\n").split("\n")
            if not last.startswith("{"):  # the process ended on its own
                told, last = finished.stderr.split("\n"), json.dumps({"status": finished.returncode, "torch": False})
            known: dict[str, Any] = json.loads(last)
            errors = "\n".join(told).strip()
            left = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
            return Called(known["status"], finished.stdout, errors, known["torch"], left)

        return run

    @pytest.fixture(scope="class")
    @classmethod
    def helped(cls, call: Callable[..., Called]) -> Called:
        """Return what ``--help`` gives."""
        return call("--help")

    def test_the_target_is_what_the_spec_says(self, spec: CommandSpec, component: Any) -> None:
        """The target is a click command; a function where it chats; a dictionary where it finetunes."""
        if spec.chats:
            problems = misfits(component, ChatCommand)
            assert not problems, "; ".join(problems)
        elif spec.finetunes:
            assert isinstance(component, dict), f"it finetunes, and its target is a {type(component).__name__}"
        else:
            assert isinstance(component, click.Command), f"its target is a {type(component).__name__}, no click command"

    def test_help_is_shown(self, helped: Called) -> None:
        """``--help`` ends with status 0 and shows something."""
        told = f"{helped.stdout[-200:]}{helped.stderr[-300:]}"
        assert helped.status == 0, f"--help ends with status {helped.status}: {told}"
        assert helped.stdout.strip(), "--help shows nothing"
        assert not helped.stderr, f"--help writes to stderr: {helped.stderr[-300:]}"

    def test_help_names_every_flag(self, helped: Called, spec: CommandSpec, component: Any) -> None:
        """``--help`` names every flag of its own."""
        own = [field.flag for field in fields_of(spec.options)] if spec.options else [*_click_flags(component)]
        missing = [flag for flag in own if flag not in helped.stdout]
        assert not missing, f"--help does not name {', '.join(missing)}"

    def test_help_leaves_nothing(self, helped: Called) -> None:
        """``--help`` writes no file into the folder that it is asked in."""
        assert not helped.left, f"--help leaves {', '.join(helped.left)}"

    def test_help_needs_no_torch(self, helped: Called) -> None:
        """``--help`` does not import torch."""
        if helped.torch:
            pytest.skip("--help imports torch, which takes seconds: import it when the command works")

    def test_an_unknown_flag_is_refused(self, call: Callable[..., Called]) -> None:
        """A flag that it does not know ends it with status 2 and a line that names the flag."""
        found = call(_UNKNOWN)
        assert found.status == 2, f"{_UNKNOWN} ends with status {found.status}: {found.stderr[-300:]}"
        assert "Traceback" not in found.stderr, f"{_UNKNOWN} shows a traceback: {found.stderr[-300:]}"
        named = [line for line in found.stderr.splitlines() if _UNKNOWN in line]
        assert len(named) == 1, f"{_UNKNOWN} is told as: {found.stderr[-300:]}"
        assert not found.left, f"refused, it leaves {', '.join(found.left)}"

    def test_its_flags_can_be_reached(self, component: Any) -> None:
        """It has no flag that lmflow takes for itself before a command sees it."""
        taken = [flag for flag in _click_flags(component) if flag in _TAKEN]
        assert not taken, f"lmflow takes {' and '.join(taken)} for itself"

    def test_its_options_stand_beside_those_of_chat(self, spec: CommandSpec, catalogue: Catalogue) -> None:
        """Where it chats, no option of its own is one of ``lmflow chat`` or of a decoder."""
        own = {field.name: field.flag for field in fields_of(spec.options)} if spec.options else {}
        taken = {field.name for settings in CHAT.settings for field in fields_of(settings)}
        for kind in CHAT.selectors.values():
            options = [other.spec.options for other in catalogue.of_kind(kind)]
            taken |= {field.name for each in options if each for field in fields_of(each)}
        twice = sorted(flag for name, flag in own.items() if name in taken)
        assert not twice, f"flags of lmflow chat and of decoders are its own as well: {', '.join(twice)}"

    def test_what_it_presets_can_be_set(self, spec: CommandSpec, component: Any, catalogue: Catalogue) -> None:
        """Where it finetunes, the values are those of options that ``lmflow finetune`` has with these components."""
        if not spec.finetunes:
            return
        known = {field.name: field for settings in FINETUNE.settings for field in fields_of(settings)}
        known |= {field.name: field for options in _chosen(component, catalogue) for field in fields_of(options)}
        unknown = sorted(set(component) - set(known))
        assert not unknown, f"lmflow finetune has no option {', '.join(unknown)}"
        for name, value in component.items():
            problem = _refusal(known[name], value)
            assert problem is None, f"the value of {name!r} cannot be set: {problem}"

    def test_no_name_is_contested(self, spec: CommandSpec, catalogue: Catalogue) -> None:
        """No other plugin has a command of its names."""
        names = {spec.name, *spec.aliases}
        twice = [str(c["name"]) for c in catalogue.conflicts() if c["kind"] == "command" and c["name"] in names]
        assert not twice, f"another plugin has a command {', '.join(twice)}"


def _click_flags(component: Any) -> Iterator[str]:
    """Yield the flags of a click command that it shows."""
    for parameter in getattr(component, "params", ()):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from (flag for flag in parameter.opts if flag.startswith("--"))


def _chosen(preset: Mapping[str, object], catalogue: Catalogue) -> Iterator[type]:
    """Yield the options of the components that a preset, or else ``lmflow finetune``, chooses.

    Raises:
        AssertionError: there is no such component.
    """
    defaults = {field.name: field.default for settings in FINETUNE.settings for field in fields_of(settings)}
    for selector, kind in FINETUNE.selectors.items():
        name = preset.get(selector, defaults.get(selector))
        if isinstance(name, str):
            try:
                options = catalogue.of_kind(kind).find(name).spec.options
            except LmflowError as error:
                raise AssertionError(f"{selector} is set to {name!r}: {error}") from None
            if options is not None:
                yield options


def _refusal(field: OptionField, value: object) -> str | None:
    try:
        field.parse(value, field.flag)
    except LmflowError as error:
        return str(error)
    return None
