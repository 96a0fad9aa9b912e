"""Broken plugins as they are met: real distributions, installed from wheels into a real virtual environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lmflow_core
from lmflow_core.testing.distributions import Project, core_range
from lmflow_core.testing.environments import Environment, build_wheels, link_third_party

_ROOT = Path(__file__).parents[2]
_REQUIRES = (f"lmflow-core{core_range()}",)
_HEAD = "from lmflow_core.api import ChatTemplate, TemplateSpec, hookimpl\n"
_TEMPLATES = f"""{_HEAD}
SHOUT = ChatTemplate(user="Q: {{content}}\\n", assistant_header="A: ", assistant="{{content}}!", stop=("!",))

@hookimpl
def lmflow_register_templates():
    yield TemplateSpec(name="shout", target=f"{{__name__}}:SHOUT", summary="Ends with a bang.")
"""


def _project(name: str, source: str, *, plugin: str = "", requires: tuple[str, ...] = _REQUIRES) -> Project:
    module = name.replace("-", "_")
    return Project(name, {f"{module}.py": source}, {plugin or name.removeprefix("lmflow-"): module}, "1.0", requires)


PROJECTS = (
    _project("lmflow-healthy", _TEMPLATES),
    _project("lmflow-importing", "import no_such_module\n" + _TEMPLATES),
    _project("lmflow-exiting", "import sys\nsys.exit('no licence')\n" + _TEMPLATES),
    _project("lmflow-halfway", _TEMPLATES + "    raise RuntimeError('halfway')\n"),
    _project("lmflow-misspelt", _TEMPLATES.replace("register_templates", "register_template")),
    _project("lmflow-outdated", "raise AssertionError('imported')", requires=("lmflow-core>=9.1,<9.2",)),
    _project("lmflow-twin", "raise AssertionError('imported')"),
    _project("other-twin", "raise AssertionError('imported')", plugin="twin"),
    _project("lmflow-bystander", "VALUE = 1\n"),
    _project("lmflow-heavy", "import torch\n" + _TEMPLATES),
    Project("torch", {"torch.py": "VALUE = 'not the real one'\n"}),
)
_TWINS = "lmflow-twin 1.0 and other-twin 1.0 declare a plugin 'twin'; uninstall all but one"
UNHEALTHY: dict[str, tuple[str, str, str]] = {
    "lmflow-bystander": (
        "broken",
        "hooks",
        "not a plugin: it implements no lmflow_register_… hook (is @hookimpl missing?)",
    ),
    "lmflow-exiting": ("broken", "import", "SystemExit: no licence"),
    "lmflow-halfway": ("broken", "collect", "RuntimeError: halfway"),
    "lmflow-heavy": ("broken", "import", "imports torch when it loads; import it in the module of a target"),
    "lmflow-importing": ("broken", "import", "ModuleNotFoundError: No module named 'no_such_module'"),
    "lmflow-misspelt": (
        "broken",
        "hooks",
        "unknown hook 'lmflow_register_template'. Did you mean 'lmflow_register_templates'?",
    ),
    "lmflow-outdated": (
        "incompatible",
        "incompatible",
        f"needs lmflow-core>=9.1,<9.2, have {lmflow_core.__version__}",
    ),
    "lmflow-twin": ("conflict", "conflict", _TWINS),
    "other-twin": ("conflict", "conflict", _TWINS),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the core, one healthy plugin and one for each way to be broken."""
    folder = tmp_path_factory.mktemp("broken")
    wheels = build_wheels([_ROOT], folder / "wheels")
    for project in PROJECTS:
        project.wheel(wheels)
    third_party = link_third_party(folder / "third_party", without=["torch"])
    environment = Environment.create(folder / "environment", third_party)
    environment.install(wheels, ["lmflow-core", *(project.name for project in PROJECTS)])
    assert (environment.site / "torch.py").is_file()
    return environment


@pytest.fixture
def lmflow(environment: Environment, tmp_path: Path) -> Iterator[Any]:
    """Run ``lmflow`` of that environment."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return environment.run("lmflow", *arguments, cwd=tmp_path, **variables)

    yield call
    assert list(tmp_path.iterdir()) == []


def test_every_failure_is_told_by_status_stage_and_error(lmflow: Any) -> None:
    result = lmflow("plugins", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert {"core", "plugins", "conflicts"} <= set(document)
    assert document["core"]["version"] == lmflow_core.__version__
    assert document["conflicts"] == []
    entries = {entry["distribution"]: entry for entry in document["plugins"]}
    assert len(entries) == len(document["plugins"])
    assert {
        name: (entry["status"], entry["stage"], entry["error"])
        for name, entry in entries.items()
        if entry["status"] != "ok"
    } == UNHEALTHY
    assert [name for name in entries if name not in UNHEALTHY] == ["lmflow-healthy"]
    assert entries["lmflow-healthy"]["provides"] == {"template": ["shout"]}
    assert [name for name, entry in entries.items() if entry["provides"]] == ["lmflow-healthy"]
    assert entries["lmflow-heavy"]["heavy_imports"] == ["torch"]
    assert entries["lmflow-twin"]["name"] == entries["other-twin"]["name"] == "twin"


@pytest.mark.parametrize("arguments", [("plugins",), ("--help",), ("plugins", "show", "halfway")])
def test_what_tells_about_plugins_works(lmflow: Any, arguments: tuple[str, ...]) -> None:
    result = lmflow(*arguments)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_listing_fits_a_terminal_and_tells_each(lmflow: Any) -> None:
    lines = lmflow("plugins").stdout.splitlines()
    assert lines[-1] == "10 plugins: 6 broken, 2 conflict, 1 incompatible, 1 ok.  Details: lmflow plugins show NAME"
    assert "healthy    1.0      ok            1 template" in lines
    assert max(map(len, lines)) <= 100
    told = " ".join(" ".join(lines).split())
    for status, stage, error in UNHEALTHY.values():
        assert f" 1.0 {status} {stage}: {error} " in told


def test_the_check_fails_until_the_broken_are_disabled(lmflow: Any) -> None:
    assert lmflow("plugins", "--check").returncode == 1
    names = ",".join(name.removeprefix("lmflow-").replace("other-", "") for name in UNHEALTHY)
    assert lmflow("plugins", "--check", LMFLOW_DISABLE_PLUGINS=names).returncode == 0
    assert lmflow("plugins", "--check", LMFLOW_PLUGINS="healthy").returncode == 0


def test_other_commands_run_and_say_one_line_for_each(lmflow: Any) -> None:
    result = lmflow("templates", "show", "shout")
    assert (result.returncode, result.stdout) == (0, "Q: What is 2 + 3?\nA: 5!Q: And 2 * 3?\nA: \n")
    conditions = {"conflict": "in conflict"}
    assert sorted(result.stderr.splitlines()) == sorted(
        f"lmflow: plugin {name} is {conditions.get(status, status)} ({error}); see 'lmflow plugins show {name}'"
        for distribution, (status, _, error) in UNHEALTHY.items()
        for name in [distribution.removeprefix("lmflow-").removeprefix("other-")]
    )


@pytest.mark.parametrize("arguments", [("plugins",), ("templates", "show", "shout")])
def test_strict_mode_refuses_to_start(lmflow: Any, arguments: tuple[str, ...]) -> None:
    result = lmflow(*arguments, LMFLOW_STRICT_PLUGINS="1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "lmflow: error: LMFLOW_STRICT_PLUGINS is set and not every plugin is healthy: bystander (hooks: not a plugin:"
    )
    assert len(result.stderr.splitlines()) == 1
    assert lmflow(*arguments, LMFLOW_STRICT_PLUGINS="1", LMFLOW_PLUGINS="healthy").returncode == 0
