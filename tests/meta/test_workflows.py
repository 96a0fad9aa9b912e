"""The workflows of the repository call what there is, trust no moving name, and may no more than they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
FILES = sorted((_ROOT / ".github" / "workflows").glob("*.yml"))
PUBLISHING = {"testpypi", "pypi"}

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def _workflow(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return loaded


def _steps(file: Path) -> Iterator[dict[str, Any]]:
    for job in _workflow(file)["jobs"].values():
        yield from job.get("steps", ())


def _release() -> dict[str, Any]:
    return _workflow(_ROOT / ".github" / "workflows" / "release.yml")["jobs"]  # type: ignore[no-any-return]


def test_there_are_workflows_of_tests_and_of_releases() -> None:
    assert [file.name for file in FILES] == ["release.yml", "test.yml"]


@each_file
def test_actions_are_pinned_to_a_commit_and_tell_its_version(file: Path) -> None:
    lines = re.findall(r"uses: (.*)", file.read_text(encoding="utf-8"))
    foreign = [line for line in lines if not line.startswith("./")]
    assert foreign
    assert [line for line in foreign if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert all((_ROOT / line).is_file() for line in lines if line.startswith("./"))
    pins = {line.partition("@")[0]: line for line in foreign}
    assert all(line == pins[line.partition("@")[0]] for line in foreign)


@each_file
def test_what_is_run_is_there(file: Path) -> None:
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for command in (line for step in _steps(file) for line in step.get("run", "").splitlines()):
        program, *arguments = command.split()
        if program == "make":
            assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in arguments), command
        elif program == "python":
            assert (_ROOT / arguments[0]).is_file(), command
        else:
            assert program in ("mkdir", "mv") or (_ROOT / program).is_file(), command


@each_file
def test_only_what_publishes_may_ask_for_an_identity(file: Path) -> None:
    workflow = _workflow(file)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        expected = {"id-token": "write"} if name in PUBLISHING and file.name == "release.yml" else None
        assert job.get("permissions") == expected
        assert job.get("environment") == (name if expected else None)
    assert "secrets." not in file.read_text(encoding="utf-8")
    assert "password" not in file.read_text(encoding="utf-8")


def test_what_is_published_was_tested_built_and_tried_before() -> None:
    needs = {name: job.get("needs") for name, job in _release().items()}
    assert needs == {"test": None, "build": "test", "testpypi": "build", "pypi": "testpypi"}
    # Nothing is built where an identity could be asked for.
    for name in PUBLISHING:
        assert all("make" not in step.get("run", "") for step in _release()[name]["steps"])


def test_the_core_is_published_first_then_the_runtime() -> None:
    (moves,) = [step["run"] for step in _release()["pypi"]["steps"] if "run" in step]
    assert re.findall(r"mv dist/(lmflow_\w+)-\* (\w+)/", moves) == [
        ("lmflow_core", "core"),
        ("lmflow_transformers", "runtime"),
    ]
    given = [step.get("with", {}) for step in _release()["pypi"]["steps"]]
    folders = [values["packages-dir"] for values in given if "packages-dir" in values]
    assert folders == ["core/", "runtime/", "dist/"]
