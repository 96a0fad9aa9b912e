"""``lmflow plugins new``: what it writes installs, works and passes its contract, for every kind, from wheels alone."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.contracts.hooks import KINDS
from lmflow_core.testing.environments import Environment, build_wheels, link_third_party

_ROOT = Path(__file__).parents[2]
_PROJECTS = [_ROOT, *sorted(path.parent for path in _ROOT.glob("plugins/*/pyproject.toml"))]
_SECONDS = 60
_ROWS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}] * 4
_ASKED = [{"ask": "Hi", "reply": "Hello!"}]
each_kind = pytest.mark.parametrize("kind", KINDS)


def _name(kind: str) -> str:
    return f"my-{kind.replace('_', '-')}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which LMFlow is installed from wheels, and nothing of a checkout can be seen."""
    folder = tmp_path_factory.mktemp("installed")
    wheels = build_wheels(_PROJECTS, folder / "wheels")
    environment = Environment.create(folder / "environment", link_third_party(folder / "third_party"))
    environment.install(wheels, [project.name if project != _ROOT else "lmflow-core" for project in _PROJECTS])
    return environment


def _install(environment: Environment, project: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--isolated", "--quiet", "--python", str(environment.python), "install"]
    subprocess.run([*pip, "--no-build-isolation", "--no-deps", "--no-index", "-e", str(project)], check=True)


def _usage(readme: str) -> Iterator[list[str]]:
    """Yield the commands that a new plugin's README tells, but for the installation."""
    (block,) = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    yield from (re.sub(r'"(.*?)"', r"\1", line).split() for line in block.splitlines() if line.startswith("lmflow"))


def _seconds_of_children() -> float:
    """Return how long the processes that were waited for have computed: the machine may have other work beside."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write_data(folder: Path, kind: str) -> None:
    rows = _ASKED if kind == "dataset" else _ROWS
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "rows.toml").write_text('[[rows]]\ntext = "one"\n', encoding="utf-8")


@pytest.mark.slow
@each_kind
def test_a_new_plugin_works_and_passes_its_contract(
    kind: str, environment: Environment, tiny_model: Path, tmp_path: Path
) -> None:
    def run(*command: object) -> str:
        settings = {"HF_HUB_OFFLINE": "1", "LMFLOW_CACHE": str(tmp_path / "cache")}
        finished = environment.run(*command, cwd=tmp_path, **settings)
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        return finished.stdout

    name = _name(kind)
    run("lmflow", "plugins", "new", name, "--kind", kind)
    project = tmp_path / f"lmflow-{name}"
    _install(environment, project)
    _write_data(tmp_path, kind)

    begun = _seconds_of_children()
    listed = {plugin["name"]: plugin for plugin in json.loads(run("lmflow", "plugins", "--json"))["plugins"]}
    assert (listed[name]["status"], listed[name]["provides"]) == ("ok", {kind: [name]})
    for command in _usage((project / "README.md").read_text(encoding="utf-8")):
        run(*(str(tiny_model) if word == "MODEL" else word for word in command))
    checked = json.loads(run("lmflow", "plugins", "check", name, "--json"))
    assert set(checked["counts"]) <= {"passed", "not checked"}
    assert _seconds_of_children() - begun < _SECONDS
    contract = f"Test{name.replace('-', ' ').title().replace(' ', '')}"
    own = f"not TestPlugin and not {contract}"  # the contracts have been run
    run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", project / "tests", "-k", own)


@each_kind
def test_what_is_written_is_in_form(kind: str, lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    assert lmflow_cli("plugins", "new", _name(kind), "--kind", kind, "--directory", tmp_path / "new").status == 0
    ruff = [sys.executable, "-m", "ruff", "--config", str(_ROOT / "pyproject.toml")]
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        found = subprocess.run(
            [*ruff[:3], *command, *ruff[3:], "."], cwd=tmp_path / "new", capture_output=True, text=True
        )
        assert found.returncode == 0, found.stdout


@pytest.mark.slow
def test_what_is_written_is_typed(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    for kind in KINDS:
        lmflow_cli("plugins", "new", _name(kind), "--kind", kind, "--directory", tmp_path / kind)
    sources = [str(path) for path in sorted(tmp_path.glob("*/src"))]
    packages = [str(package) for source in sources for package in Path(source).iterdir()]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--cache-dir", os.devnull, *packages],
        env={**os.environ, "MYPYPATH": os.pathsep.join(sources)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("My Tuner", "tuner", "'My Tuner' is no name for a plugin: small letters, digits and single dashes"),
        ("lora", "tuner", "there is a plugin 'lora' already"),
        ("dora-", "tuner", "is no name for a plugin"),
        ("chat", "command", "'chat' is a command of the core"),
        ("chatml", "template", "the plugin 'templates' provides a template 'chatml' already"),
    ],
)
def test_names_that_are_none_or_taken_are_refused(
    name: str, kind: str, told: str, lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    result = lmflow_cli("plugins", "new", name, "--kind", kind, "--directory", tmp_path / "new")
    assert (result.status, told in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "new").exists()


def test_a_name_of_strangers_and_a_folder_with_files_are_refused(
    lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    strange = lmflow_cli("plugins", "new", "vis" + "ion", "--kind", "tuner", "--directory", tmp_path / "new")
    assert "is a package of somebody else on PyPI" in strange.stderr
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    taken = lmflow_cli("plugins", "new", "bits", "--kind", "tuner", "--directory", tmp_path)
    assert taken.status == 2
    assert "already holds files" in taken.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
