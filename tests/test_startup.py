"""What a command costs before it does anything: nothing heavy is imported, and little CPU time goes by."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "yaml", "rich", "matplotlib", "packaging")
PROGRAMS = {
    "lmflow plugins": "from lmflow_core.cli.main import run\nassert run(['plugins']) == 0",
    "lmflow --help": "from lmflow_core.cli.main import run\nassert run(['--help']) == 0",
    "import lmflow_core": "import lmflow_core",
    "import lmflow_core.api": "import lmflow_core.api",
}
_BUDGET = 0.300
_TRIES = 5


def _run(program: str, folder: Path) -> str:
    """Run a program as one that is installed runs: from its bytecode, which pip writes."""
    command = [sys.executable, "-c", program]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def _imported(program: str, folder: Path) -> set[str]:
    report = "import sys\nprint('\\0', *sys.modules, sep='\\0')"
    return set(_run(f"{program}\n{report}", folder).rpartition("\0\0")[2].strip().split("\0"))


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_heavy_is_imported(program: str, tmp_path: Path) -> None:
    imported = _imported(PROGRAMS[program], tmp_path)
    assert "lmflow_core" in imported
    assert imported.intersection(HEAVY) == set()


def test_every_installed_plugin_was_loaded_when_that_was_measured(tmp_path: Path) -> None:
    imported = _imported(PROGRAMS["lmflow plugins"], tmp_path)
    assert {"lmflow_lora.plugin", "lmflow_transformers.plugin", "lmflow_templates.plugin"} <= imported
    assert "lmflow_lora.tuner" not in imported


def test_importing_the_core_loads_no_plugin_and_no_command_line(tmp_path: Path) -> None:
    imported = _imported("import lmflow_core", tmp_path)
    assert {name for name in imported if name.startswith(("lmflow", "click", "pluggy"))} == {"lmflow_core"}


def _cpu_seconds(program: str, folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(program, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("program", ["lmflow plugins", "lmflow --help", "import lmflow_core"])
def test_a_command_starts_within_its_budget_of_cpu_time(program: str, tmp_path: Path) -> None:
    assert min(_cpu_seconds(PROGRAMS[program], tmp_path) for _ in range(_TRIES)) < _BUDGET
