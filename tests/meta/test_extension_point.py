"""A new extension point is one file in ``contracts`` and one line in ``hooks``; everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmflow_core.testing.distributions import Project

_CORE = Path(__file__).parents[2] / "lmflow_core"
_FILE = """
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.spec import Selector, Spec


class Greeting(Protocol):
    def greet(self, name: str) -> str: ...


@dataclass(frozen=True, kw_only=True)
class GreetingSpec(Spec):
    kind: ClassVar[str] = "greeting"
    contract: ClassVar[type | None] = Greeting
    selector: ClassVar[Selector | None] = Selector("greeting", "How a run says hello.", {"finetune": None})
"""
_LINE = '    "greeting",\n'
_PLUGIN = """
from dataclasses import dataclass
from lmflow_core.api import hookimpl, option
from lmflow_core.contracts.greeting import GreetingSpec

@dataclass(frozen=True, kw_only=True)
class Options:
    greeting_volume: int = option(3, help="How loud.")

class Polite:
    def greet(self, name): return name

class Mute:
    pass

@hookimpl
def lmflow_register_greetings():
    yield GreetingSpec(name="polite", target="lmflow_hello:Polite", summary="Says hello.", options=Options)
    yield GreetingSpec(name="mute", target="lmflow_hello:Mute", summary="Says nothing.")
"""
_LOADED = """
from lmflow_core.contracts.greeting import GreetingSpec
from lmflow_core.plugins.registry import Catalogue
known = Catalogue.discover().of(GreetingSpec)
print(known.load("polite")().greet("you"))
known.load("mute")
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("core")
    shutil.copytree(_CORE, folder / "lmflow_core", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lmflow_core" / "contracts" / "greeting.py").write_text(_FILE, encoding="utf-8")
    hooks = folder / "lmflow_core" / "contracts" / "hooks.py"
    text = hooks.read_text(encoding="utf-8")
    hooks.write_text(text.replace('    "command",\n', f'    "command",\n{_LINE}'), encoding="utf-8")
    assert hooks.read_text(encoding="utf-8").count("\n") == text.count("\n") + 1
    Project("lmflow-hello", {"lmflow_hello.py": _PLUGIN}, {"hello": "lmflow_hello"}).unpack(folder)
    return {**os.environ, "PYTHONPATH": str(folder), "LMFLOW_PLUGINS": "hello,transformers"}


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command, folder = [sys.executable, *arguments], environment["PYTHONPATH"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)


def _lmflow(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return _run(environment, "-m", "lmflow_core", *arguments)


def test_it_is_listed(environment: dict[str, str]) -> None:
    listed = json.loads(_lmflow(environment, "plugins", "--json").stdout)["plugins"]
    assert next(p for p in listed if p["name"] == "hello")["provides"] == {"greeting": ["polite", "mute"]}
    assert "Says hello." in _lmflow(environment, "plugins", "--kind", "greeting").stdout


def test_a_user_chooses_it_by_a_flag_that_brings_its_options(environment: dict[str, str]) -> None:
    plain = _lmflow(environment, "finetune", "--help").stdout
    assert "--greeting TEXT" in plain
    assert "How a run says hello." in plain
    assert "--greeting-volume" not in plain
    assert "--greeting-volume N" in _lmflow(environment, "finetune", "--greeting", "polite", "--help").stdout
    wrong = _lmflow(environment, "finetune", "--model", "m", "--dataset", "d", "--output", "o", "--greeting", "polit")
    assert wrong.returncode == 2
    assert "unknown greeting 'polit'. Did you mean 'polite'?" in wrong.stderr


def test_its_targets_are_loaded_and_held_to_the_contract(environment: dict[str, str]) -> None:
    finished = _run(environment, "-c", _LOADED)
    assert finished.stdout == "you\n"
    assert "does not fit its contract: it has no method 'greet'" in finished.stderr
