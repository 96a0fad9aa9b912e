"""The contract of a plugin as a whole: it loads light and without traces, and declares what it needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.options import fields_of
from lmflow_core.plugins.installed import GROUP
from lmflow_core.plugins.official import official_names
from lmflow_core.plugins.policy import short_name
from lmflow_core.plugins.record import PluginRecord
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.versions import core_requirement
from lmflow_core.testing.contracts.base import Contract
from lmflow_core.testing.imports import imported_modules

_PUBLIC = ("api", "options")
_BUDGET_SECONDS = 0.1
_ATTEMPTS = 3
# Runs in a process of its own: what importing a module and calling its hooks costs and leaves behind.
_PROBE = """
import contextlib, importlib, io, json, logging, os, signal, sys, threading, time
import lmflow_core.api, lmflow_core.cli.main

set_variables, putenv = [], os.putenv
os.putenv = lambda name, value: (set_variables.append(name), putenv(name, value))

def state():
    return {
        "the working directory": os.getcwd(), "sys.path": list(sys.path), "environment variables": list(set_variables),
        "handlers of logging": len(logging.getLogger().handlers), "threads": threading.active_count(),
        "signal handlers": str([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]),
        "the recursion limit": sys.getrecursionlimit(), "sys.excepthook": str(sys.excepthook),
    }

before, written, started = state(), io.StringIO(), time.process_time()
with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
    module = importlib.import_module(sys.argv[1])
    hooks = [getattr(module, name) for name in sorted(dir(module)) if name.startswith("lmflow_register_")]
    once = [list(hook() or ()) for hook in hooks]
seconds, after = time.process_time() - started, state()
print(json.dumps({
    "seconds": seconds, "written": written.getvalue(), "repeats": once == [list(hook() or ()) for hook in hooks],
    "changed": [name for name in before if before[name] != after[name]],
}))
"""


class PluginContract(Contract):
    """What every plugin must do.

    Attributes:
        name: of the plugin, as ``lmflow plugins`` lists it.
    """

    kind: ClassVar[str] = "plugin"
    name: ClassVar[str] = ""

    @pytest.fixture(scope="class")
    @classmethod
    def catalogue(cls) -> Catalogue:
        """Return the plugins that are installed."""
        return Catalogue.discover()

    @pytest.fixture(scope="class")
    @classmethod
    def record(cls, catalogue: Catalogue) -> PluginRecord:
        """Return what became of the plugin."""
        found = [record for record in catalogue.plugins.records if record.name == short_name(cls.name)]
        assert found, f"no plugin {cls.name!r} is installed: is its distribution, with an entry point of {GROUP!r}?"
        return found[0]

    @pytest.fixture(scope="class")
    @classmethod
    def distribution(cls, record: PluginRecord) -> importlib.metadata.Distribution:
        """Return the distribution of the plugin."""
        return importlib.metadata.distribution(record.distribution)

    @pytest.fixture(scope="class")
    @classmethod
    def module(cls, record: PluginRecord, distribution: importlib.metadata.Distribution) -> str:
        """Return the module that its entry point names."""
        entries = distribution.entry_points.select(group=GROUP)
        return next(entry.module for entry in entries if short_name(entry.name) == record.name)

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, module: str) -> Path:
        """Return the folder of its code, or its only file."""
        spec = importlib.util.find_spec(module.split(".")[0])
        assert spec is not None
        folders = list(spec.submodule_search_locations or ())
        return Path(folders[0]) if folders else Path(str(spec.origin))

    @pytest.fixture(scope="class")
    @classmethod
    def probe(cls, record: PluginRecord, module: str) -> Mapping[str, Any]:
        """Return what loading costs and leaves, of the quickest of some attempts."""
        attempts = [_probed(module) for _ in range(_ATTEMPTS)]
        return min(attempts, key=lambda attempt: float(attempt["seconds"]))

    def test_it_is_healthy(self, record: PluginRecord) -> None:
        """It loads, with known hooks and valid specs, and provides something."""
        # In a process of its own: in this one, what is heavy may have been imported already.
        command = [sys.executable, "-m", "lmflow_core", "plugins", "--json"]
        listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["plugins"]
        (entry,) = (entry for entry in listed if entry["name"] == record.name)
        assert entry["status"] == "ok", f"{entry['status']} at stage {entry['stage']}: {entry['error']}"
        assert entry["provides"], "its hooks give no spec"

    def test_it_loads_quickly(self, probe: Mapping[str, Any]) -> None:
        """Loading it takes less than a tenth of a second of the processor."""
        took = probe["seconds"]
        assert took < _BUDGET_SECONDS, f"loading takes {took:.2f} s: import what is heavy in the module of a target"

    def test_loading_leaves_no_trace(self, probe: Mapping[str, Any]) -> None:
        """Loading it changes nothing in the process, and prints nothing."""
        assert not probe["changed"], f"loading changes {' and '.join(probe['changed'])}"
        assert not probe["written"], f"loading prints {probe['written']!r}"

    def test_hooks_only_declare(self, probe: Mapping[str, Any]) -> None:
        """Its hooks give the same specs whenever they are called."""
        assert probe["repeats"], "the hooks give other specs when they are called again"

    def test_every_import_is_declared(self, package: Path, distribution: importlib.metadata.Distribution) -> None:
        """Every package that its code imports belongs to a distribution that it declares."""
        declared = {_name(requirement) for requirement in distribution.requires or ()}
        providers = importlib.metadata.packages_distributions()
        undeclared = {}
        for module, file in imported_modules(package).items():
            top = module.split(".")[0]
            if not declared.intersection(map(_name, [top, *providers.get(top, ())])):
                undeclared[top] = file
        assert not undeclared, f"imported and not among the dependencies: {_listed(undeclared)}"

    def test_it_uses_the_public_interface(self, package: Path) -> None:
        """Of LMFlow, its code imports only what is public."""
        private = {
            module: file
            for module, file in imported_modules(package).items()
            if module.startswith("lmflow_") and module.split(".")[1:] not in [[name] for name in _PUBLIC]
        }
        assert not private, f"private: {_listed(private)}; lmflow_core.api and lmflow_transformers.api are public"

    def test_its_targets_are_its_own(self, record: PluginRecord, package: Path) -> None:
        """The targets of its specs are modules of its own package."""
        foreign = [spec.target for spec in record.specs if spec.target.split(":")[0].split(".")[0] != package.stem]
        assert not foreign, f"targets of other packages: {', '.join(foreign)}"

    def test_its_range_of_the_core_ends(self, distribution: importlib.metadata.Distribution) -> None:
        """It depends on lmflow-core, up to a version."""
        required = core_requirement(tuple(distribution.requires or ()))
        assert required is not None, "lmflow-core is not among its dependencies"
        assert re.search(r"(^|,)\s*[<=~]", required), f"lmflow-core{required} has no upper bound, such as <0.2"

    def test_names_are_free(self, record: PluginRecord, catalogue: Catalogue) -> None:
        """No other plugin, installed or official, provides its names."""
        own = {(spec.kind, name) for spec in record.specs for name in (spec.name, *spec.aliases)}
        contested = {(str(c["kind"]), str(c["name"])) for c in catalogue.conflicts()}
        official = {
            (kind, name)
            for kind, names in official_names().items()
            for name, owner in names.items()
            if owner != record.distribution
        }
        taken = sorted(f"{kind} {name!r}" for kind, name in own & (contested | official))
        assert not taken, f"provided by another plugin: {', '.join(taken)}"

    def test_its_description_is_complete(
        self, record: PluginRecord, package: Path, distribution: importlib.metadata.Distribution
    ) -> None:
        """Its metadata has summary, licence and Python; its README has each name and flag in backticks."""
        metadata = distribution.metadata.json
        missing = [field for field in ("summary", "license_expression", "requires_python") if not metadata.get(field)]
        assert not missing, f"the metadata lacks {', '.join(missing)}"
        text = str(metadata.get("description", ""))
        names = {name for spec in record.specs for name in (spec.name, *spec.aliases)}
        options = {spec.options for spec in record.specs if spec.options}
        own = [each for each in options if each.__module__.split(".")[0] == package.stem]
        flags = {field.flag for each in own for field in fields_of(each)}
        untold = sorted(name for name in names | flags if f"`{name}`" not in text)
        assert not untold, f"not in its README (in backticks): {', '.join(untold)}"

    def test_it_is_typed(self, package: Path) -> None:
        """Its package is marked as typed."""
        assert package.is_file() or (package / "py.typed").is_file(), f"{package.name}/py.typed is missing"


def _probed(module: str) -> Mapping[str, Any]:
    finished = subprocess.run([sys.executable, "-c", _PROBE, module], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"it cannot be loaded: {finished.stderr.strip().splitlines()[-1:]}"
    probe: Mapping[str, Any] = json.loads(finished.stdout)
    return probe


def _name(requirement: str) -> str:
    """Return the normal form of the name that a requirement begins with."""
    match = re.match(r"[\w.-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _listed(files: Mapping[str, str]) -> str:
    return ", ".join(f"{module} ({file})" for module, file in sorted(files.items()))
