"""Runs the tests of each plugin with nothing of LMFlow but the core, the plugin, and what it declares to depend on.

``python dev/isolate.py`` takes every plugin, ``python dev/isolate.py lora datasets`` those named. Slow tests are left
out. Exits with 1 when a plugin's tests fail, or when it has none.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lmflow_core.plugins.policy import short_name
from lmflow_core.report import console
from lmflow_core.testing.environments import Environment, build_wheels, link_third_party

_ROOT = Path(__file__).parents[1]
_CORE = "lmflow-core"
# Plugins that are tested at the same time, each on one thread.
_TOGETHER = 2


@dataclass(frozen=True)
class Plugin:
    """A plugin's folder, and the LMFlow distributions it declares as dependencies."""

    folder: Path
    name: str
    depends_on: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of one plugin: the last line of its tests, and everything they wrote."""

    plugin: Plugin
    passed: bool
    summary: str
    output: str


def read_plugins(root: Path) -> dict[str, Plugin]:
    """Return the plugins of a checkout, contributed ones too, by the names of their distributions."""
    plugins: dict[str, Plugin] = {}
    for path in sorted(path for folder in ("plugins", "contrib") for path in root.glob(f"{folder}/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        names = (re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in project["dependencies"])
        depends_on = tuple(name for name in names if name.startswith("lmflow-"))
        plugins[project["name"]] = Plugin(path.parent, project["name"], depends_on)
    return plugins


def needed(name: str, plugins: dict[str, Plugin]) -> set[str]:
    """Return a distribution and, of LMFlow's, all that it depends on."""
    found = {name}
    for dependency in plugins[name].depends_on if name in plugins else ():
        found |= needed(dependency, plugins)
    return found


def run_alone(plugin: Plugin, plugins: dict[str, Plugin], wheels: Path, third_party: Path, folder: Path) -> Outcome:
    """Run one plugin's tests in an environment of its own."""
    installed = needed(plugin.name, plugins)
    environment = Environment.create(folder / plugin.name, third_party)
    environment.install(wheels, sorted(installed))
    elsewhere = folder / f"{plugin.name}-elsewhere"
    elsewhere.mkdir()
    listed = environment.run("lmflow", "plugins", "--json", cwd=elsewhere)
    statuses = {entry["distribution"]: entry["status"] for entry in json.loads(listed.stdout)["plugins"]}
    if statuses != dict.fromkeys(installed - {_CORE}, "ok"):
        return Outcome(plugin, False, f"installed alone, the plugins are {statuses}", listed.stdout)
    finished = environment.run(
        "python",
        *("-m", "pytest", plugin.folder / "tests", "-q", "-m", "not slow", "-p", "no:cacheprovider"),
        *("-c", _ROOT / "pyproject.toml", "--rootdir", elsewhere),
        cwd=elsewhere,
        OMP_NUM_THREADS="1",
    )
    lines = finished.stdout.strip().splitlines() or ["no output"]
    return Outcome(plugin, finished.returncode == 0, lines[-1], finished.stdout + finished.stderr)


def run_all(chosen: Sequence[Plugin], plugins: dict[str, Plugin]) -> Iterator[Outcome]:
    """Build every wheel once, and yield the outcome of each chosen plugin."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = build_wheels([_ROOT, *(plugin.folder for plugin in plugins.values())], folder / "wheels")
        third_party = link_third_party(folder / "third_party")
        with ThreadPoolExecutor(_TOGETHER) as pool:
            yield from pool.map(lambda plugin: run_alone(plugin, plugins, wheels, third_party, folder), chosen)


def main(names: Sequence[str]) -> int:
    """Run what is named, print a table, and return the exit status."""
    plugins = read_plugins(_ROOT)
    wanted = [f"lmflow-{short_name(name)}" for name in names] or list(plugins)
    if unknown := [name for name in wanted if name not in plugins]:
        console.note(f"no such plugin: {', '.join(unknown)}")
        return 2
    outcomes = []
    for outcome in run_all([plugins[name] for name in wanted], plugins):
        outcomes.append(outcome)
        console.note(f"{outcome.plugin.name}: {outcome.summary}")
        if not outcome.passed:
            print(outcome.output)
    rows = [(o.plugin.name, "ok" if o.passed else "FAILED", o.summary) for o in outcomes]
    print(console.table(("PLUGIN", "ALONE", "TESTS"), rows))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
