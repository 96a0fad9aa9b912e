"""The public interface stands in a file, and does not change unless that file and the changelog say so."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from lmflow_core.testing.scripts import load_script

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script(_ROOT / "dev" / "public_interface.py")


def test_the_file_is_up_to_date(script: ModuleType) -> None:
    told = "docs/public-interface.txt is out of date: run python dev/public_interface.py"
    assert script.FILE.read_text(encoding="utf-8") == script.public_interface(), told


def test_the_changelog_tells_of_the_latest_change(script: ModuleType) -> None:
    digest = script.digest(script.public_interface())
    entries = [
        line for line in (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n* ") if f"({digest})" in line
    ]
    assert len(entries) == 1, (
        f"an entry of CHANGELOG.md on the public interface must tell what changed, and hold ({digest})"
    )
    assert entries[0].startswith("Public interface")


def test_a_change_of_any_kind_changes_the_digest(script: ModuleType) -> None:
    text = script.public_interface()
    assert len({script.digest(changed) for changed in (text, text + "  def more()\n", text.replace("  ", " ", 1))}) == 3
    for expected in ("class TunerSpec(Spec)", "def train(job", "check test_frozen_weights_stay", "temperature: float"):
        assert expected in text
