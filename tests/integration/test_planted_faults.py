"""The contracts catch what they are there for: each planted fault fails the check that is to catch it, and what is
sound passes all.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmflow_core.contracts.hooks import KINDS
from lmflow_core.testing.distributions import Project

_FAULTS = Path(__file__).parents[2] / "dev" / "faults"
PLANTED: dict[str, dict[str, Any]] = yaml.safe_load((_FAULTS / "faults.yaml").read_text(encoding="utf-8"))
OF_PLUGINS: dict[str, dict[str, str]] = PLANTED.pop("plugin")
_METADATA = {"Summary": "A planted plugin.", "License-Expression": "Apache-2.0", "Requires-Python": ">=3.11"}
_PLUGIN = """
from lmflow_core.api import {spec_class}, hookimpl
{header}

@hookimpl
def {hook}():
"""
_SPEC = "    yield {spec_class}(name={name!r}, target={target!r}, summary='{summary}'{more})\n"


def _name(target: str) -> str:
    """Return the name under which a class, function or constant is offered."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", target).lower().replace("_", "-")
    return f"planted-{words}"


def _installed(kind: str, site: Path) -> str:
    """Install the plugin that offers what is planted for a kind, and return its name."""
    planted, spec_class = PLANTED[kind], KINDS[kind]
    package = f"lmflow_faulty_{kind}"
    source = _PLUGIN.format(spec_class=spec_class.__name__, header=planted.get("header", ""), hook=spec_class.hook())
    sound = planted["sound"] if isinstance(planted["sound"], Mapping) else dict.fromkeys(planted["sound"])
    fields = {**sound, **planted["faults"]}
    for target, value in fields.items():
        own = value.get("spec", "") if isinstance(value, Mapping) else ""
        more = "".join(f", {field}" for field in (own or planted.get("spec", ""),) if field)
        source += _SPEC.format(
            spec_class=spec_class.__name__,
            name=_name(target),
            target=f"{package}.targets:{target}",
            summary="Planted.",
            more=more,
        )
    files = {
        f"{package}/__init__.py": "",
        f"{package}/plugin.py": source,
        f"{package}/targets.py": (_FAULTS / f"{kind}.py").read_text(encoding="utf-8"),
    }
    name = f"faulty-{kind.replace('_', '-')}"
    Project(f"lmflow-{name}", files, {name: f"{package}.plugin"}).unpack(site)
    return name


def _check(plugin: str, site: Path, kind: str, only: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the message of each failed check, by the name of the component and the check."""
    path = os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    asked = json.dumps({"plugin": plugin, "kind": kind, "options": {}, "only": only})
    finished = subprocess.run(
        [sys.executable, "-m", "lmflow_core.testing", asked],
        capture_output=True,
        text=True,
        cwd=site,  # some faults leave files where they work
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert finished.stdout, finished.stderr
    failed: dict[str, dict[str, str]] = {}
    for outcome in map(json.loads, finished.stdout.splitlines()):
        checks = failed.setdefault(outcome["name"], {})
        if outcome["outcome"] == "failed":
            checks[outcome["check"].partition("[")[0]] = outcome["message"]
    return failed


def _catching(value: str | Mapping[str, str]) -> str:
    """Return the check that is to catch a fault."""
    return value["check"] if isinstance(value, Mapping) else value


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLANTED)
def test_a_contract_catches_every_planted_fault(kind: str, tmp_path: Path) -> None:
    planted = PLANTED[kind]
    checks = {target: _catching(value) for target, value in planted["faults"].items()}
    only = {_name(target): check for target, check in checks.items()}
    failed = _check(_installed(kind, tmp_path), tmp_path, kind, only)
    assert {target: failed[_name(target)] for target in planted["sound"]} == {target: {} for target in planted["sound"]}
    missed = [f"{target}: {check}" for target, check in checks.items() if check not in failed[_name(target)]]
    assert missed == []


@pytest.mark.parametrize("kind", PLANTED)
def test_enough_is_planted_and_each_fault_is_described(kind: str) -> None:
    planted = PLANTED[kind]
    assert len(planted["faults"]) >= 5
    assert planted["sound"]
    tree = ast.parse((_FAULTS / f"{kind}.py").read_text(encoding="utf-8"))
    described = {
        node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    constants = {
        name.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    assert {*planted["sound"], *planted["faults"]} <= described | constants


def _changed(fault: dict[str, str], files: dict[str, str]) -> dict[str, str]:
    """Return the files of a plugin with a fault planted."""
    path = f"lmflow_planted/{fault.get('file')}"
    if fault.get("file") is None:
        return files
    if "old" in fault:
        assert fault["old"] in files[path]
        return {**files, path: files[path].replace(fault["old"], fault["text"])}
    if "at_end" in fault:
        return {**files, path: f"{files[path]}\n{fault['at_end']}\n"}
    return {name: text for name, text in files.items() if name != path}


def _failed_of_plugin(fault: dict[str, str], project: Path, site: Path) -> dict[str, str]:
    source = project / "src"
    files = {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in source.rglob("*.*")}
    lacking = fault.get("metadata")
    Project(
        "lmflow-planted",
        _changed(fault, files),
        {"planted": "lmflow_planted.plugin"},
        requires=["lmflow-core>=0.1" + ("" if lacking == "Requires-Dist" else ",<0.2")],
        metadata={name: value for name, value in _METADATA.items() if name != lacking},
        description="" if lacking == "Description" else (project / "README.md").read_text(encoding="utf-8"),
    ).unpack(site)
    only = {"planted": fault["check"]} if fault else {}
    return _check("planted", site, "plugin", only)["planted"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Sound", *OF_PLUGINS])
def test_the_contract_of_plugins_catches_every_planted_fault(
    name: str, lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    project, site = tmp_path / "project", tmp_path / "site"
    assert lmflow_cli("plugins", "new", "planted", "--kind", "template", "--directory", project).status == 0
    fault = OF_PLUGINS.get(name, {})
    failed = _failed_of_plugin(fault, project, site)
    assert fault["check"] in failed if fault else failed == {}
