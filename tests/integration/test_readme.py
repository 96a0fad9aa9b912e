"""What a newcomer does first, as it stands in the README, with the real model.

The README's other commands are run by ``test_docs.py``, with a tiny one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmflow_core.testing.documents import blocks_of, commands_of

_ROOT = Path(__file__).parents[2]
# Left out: it is what runs this test. CI runs it as it stands.
_SELF = "make test"
_SEEN_IN_CHECKOUT = ("Makefile", "dev", "examples", "lmflow_core", "plugins", "pyproject.toml")


def _blocks() -> list[list[str]]:
    return [commands_of(block) for block in blocks_of(_ROOT / "README.md") if block.language == "bash"]


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
def test_the_quickstart_and_what_follows_it(checkout: Path) -> None:
    first, then, *_ = _blocks()
    assert first == ["make quickstart", _SELF]
    assert then[0] == ". .venv/bin/activate"
    _run(first[0], checkout)
    before, after = (json.loads((checkout / "runs" / f"{name}.json").read_text()) for name in ("before", "after"))
    assert before["tokens"] == after["tokens"]
    assert after["nll_per_token"] < before["nll_per_token"] * 2 / 3
    assert (checkout / "runs" / "quickstart" / "loss.png").is_file()

    assert [command.split()[:4] for command in then[1:]] == [
        ["lmflow", command, "--model", "runs/quickstart"] for command in ("chat", "generate")
    ]
    _run(then[0], checkout)
    assert all(_run(command, checkout).strip() != "" for command in then[1:])


def test_ci_runs_the_readmes_test_command() -> None:
    assert f"\n{_SELF}\n" in (_ROOT / ".ci" / "run").read_text(encoding="utf-8")
