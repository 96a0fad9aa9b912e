"""One command gives every distribution a new version; another tells what is not ready for a release."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.scripts import load_script

_ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script(_ROOT / "dev" / "version.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of whatever of this checkout tells a version."""
    patterns = ("pyproject.toml", "*.md", "lmflow_core/__init__.py", "docs/*.md")
    parts = ("pyproject.toml", "*.md", "src/*/__init__.py")
    patterns += tuple(f"{kind}/*/{part}" for kind in ("plugins", "contrib") for part in parts)
    for pattern in patterns:
        for file in _ROOT.glob(pattern):
            copy = tmp_path / file.relative_to(_ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    return tmp_path


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()}


def test_a_new_version_is_written_everywhere_and_nothing_else_is(script: Any, checkout: Path) -> None:
    before = _texts(checkout)
    old = script.version_of(checkout)
    assert script.main(["7.3.1"], checkout) == 0
    projects = script.projects(checkout)
    assert len(projects) == len(script.projects(_ROOT)) > 10
    for folder in projects:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["version"] == "7.3.1"
        ours = [needed for needed in project["dependencies"] if needed.startswith("lmflow-")]
        assert all(needed.endswith(">=7.3,<7.4") for needed in ours)
        assert bool(ours) == (folder != checkout)
    inits = [text for name, text in _texts(checkout).items() if name.endswith("__init__.py")]
    assert len(inits) >= len(projects)
    assert sum('__version__ = "7.3.1"' in text for text in inits) == len(projects)
    tutorial = (checkout / "docs" / "writing-a-plugin.md").read_text("utf-8")
    assert set(re.findall(r"lmflow-(?:core|transformers)>=[^`\"\s]*", tutorial)) == {
        "lmflow-core>=7.3,<7.4",
        "lmflow-transformers>=7.3,<7.4",
    }
    assert _texts(checkout)["CHANGELOG.md"] == before["CHANGELOG.md"]
    assert script.main([old], checkout) == 0
    assert _texts(checkout) == before


@pytest.mark.parametrize("version", ["7.3", "v7.3.1", "7.3.1rc1", "newest", ""])
def test_what_is_no_version_changes_nothing(script: Any, checkout: Path, version: str) -> None:
    before = _texts(checkout)
    assert script.main([version], checkout) == 2
    assert _texts(checkout) == before


def test_a_file_that_does_not_tell_the_version_changes_nothing(
    script: Any, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkout / "plugins" / "lmflow-lora" / "src" / "lmflow_lora" / "__init__.py"
    file.write_text("")
    before = _texts(checkout)
    assert script.main(["7.3.1"], checkout) == 2
    assert capsys.readouterr().err == f"{file} tells the version in 0 lines, not in one\n"
    assert _texts(checkout) == before


def test_a_release_needs_its_tag_one_version_and_a_dated_section(
    script: Any, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.set_version(checkout, "7.3.1")
    log = checkout / "CHANGELOG.md"
    log.write_text("# Changelog\n\n## 7.3.1 (unreleased)\n")
    lora = checkout / "plugins" / "lmflow-lora" / "pyproject.toml"
    lora.write_text(lora.read_text("utf-8").replace('"7.3.1"', '"7.3.0"'))
    assert script.main(["--check", "v7.3.0"], checkout) == 1
    assert capsys.readouterr().err.splitlines() == [
        "the tag is v7.3.0, and the version 7.3.1",
        "lmflow-lora has the version 7.3.0, and the core 7.3.1",
        "CHANGELOG.md has no section '## 7.3.1 (YEAR-MONTH-DAY)'",
    ]
    script.set_version(checkout, "7.3.1")
    log.write_text("# Changelog\n\n## 7.3.1 (2030-01-31)\n")
    assert script.main(["--check", "v7.3.1"], checkout) == 0
    assert capsys.readouterr().err == ""
