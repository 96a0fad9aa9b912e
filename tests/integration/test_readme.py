"""Every command of the README, in order, as a newcomer types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
# Left out: it is what runs this test. CI runs it as it stands.
_SELF = "make test"
_SEEN_IN_CHECKOUT = ("Makefile", "dev", "examples", "lmflow_core", "plugins", "pyproject.toml")


def _commands() -> list[str]:
    blocks = _BLOCK.findall((_ROOT / "README.md").read_text(encoding="utf-8"))
    joined = "".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like a checkout, with this environment as its ``.venv``."""
    for name in _SEEN_IN_CHECKOUT:
        (tmp_path / name).symlink_to(_ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def _run(command: str, folder: Path) -> str:
    # The environment is there already: its rule is not to be made again, from whatever folder this is.
    command = command.replace("make quickstart", "make -o setup quickstart")
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        input="What is a template?\n/exit\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"},
        timeout=1500,
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    return finished.stdout


@pytest.mark.slow
def test_every_command_of_the_readme(checkout: Path) -> None:
    commands = _commands()
    assert commands[:2] == ["make quickstart", _SELF]
    for command in commands:
        if command != _SELF:
            _run(command, checkout)

    before, after = (json.loads((checkout / "runs" / f"{name}.json").read_text()) for name in ("before", "after"))
    assert before["tokens"] == after["tokens"]
    assert after["nll_per_token"] < before["nll_per_token"] * 2 / 3
    assert (checkout / "runs" / "quickstart" / "loss.png").is_file()


def test_ci_runs_the_readmes_test_command() -> None:
    assert f"\n{_SELF}\n" in (_ROOT / ".ci" / "run").read_text(encoding="utf-8")
