"""Runs the contracts of a plugin and of all it provides; ``lmflow plugins check`` starts this as a process.

``python -m lmflow_core.testing PLUGIN`` writes an outcome to stdout as soon as it is known, a JSON object a line.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts import CONTRACTS, ComponentContract, Contract, PluginContract

PASSED, FAILED, UNCHECKED = "passed", "failed", "not checked"
_LONGEST = 500
_FILE = """
from lmflow_core.testing.checking import chosen_contracts

globals().update(chosen_contracts())
"""
_ENVIRONMENT = "LMFLOW_CHECKED"


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    Attributes:
        kind: of the component; ``plugin`` for the plugin as a whole.
        name: of the component or the plugin.
        check: the method of the contract.
        summary: the first line of its docstring.
        outcome: ``passed``, ``failed`` or ``not checked``.
        message: why, where it did not pass.
    """

    kind: str
    name: str
    check: str
    summary: str
    outcome: str
    message: str = ""


def contracts_of(
    plugin: str, catalogue: Catalogue, kind: str | None = None, options: Mapping[str, object] | None = None
) -> dict[str, type[Contract]]:
    """Return the contracts of a plugin and of each component it provides, by the names of classes.

    Args:
        plugin: the plugin's name.
        catalogue: the plugins there are.
        kind: only components of this kind; ``plugin`` is the plugin as a whole alone, None is everything.
        options: values for options of the components, by name.
    """
    found: dict[str, type[Contract]] = {}
    if kind in (None, PluginContract.kind):
        found["TestPlugin"] = type("TestPlugin", (PluginContract,), {"name": plugin})
    record = next(record for record in catalogue.plugins.records if record.name == plugin)
    for number, spec in enumerate(record.specs):
        if kind in (None, spec.kind):
            contract: type[ComponentContract] = CONTRACTS[spec.kind]
            members = {"name": f"{plugin}:{spec.name}", "options": dict(options or {})}
            found[f"Test{number}"] = type(f"Test{number}", (contract,), members)
    return found


def chosen_contracts() -> dict[str, type[Contract]]:
    """Return the contracts that the process was asked to run."""
    asked = json.loads(os.environ[_ENVIRONMENT])
    return contracts_of(asked["plugin"], Catalogue.discover(), asked["kind"], asked["options"])


class _Reporter:
    """A plugin of pytest that tells the outcome of each check."""

    def __init__(self, tell: Callable[[Outcome], None], only: Mapping[str, str]) -> None:
        self._tell = tell
        self._only = only
        self._known: dict[str, tuple[str, str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what is not asked for."""
        items[:] = [item for item in items if self._is_asked_for(item)]

    def _is_asked_for(self, item: pytest.Item) -> bool:
        _, name, _ = self._known[item.nodeid]
        return self._only.get(name) in (None, item.originalname)  # type: ignore[attr-defined]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Remember what a check is called."""
        contract = item.cls  # type: ignore[attr-defined]
        summary = (item.function.__doc__ or item.name).strip().splitlines()[0]  # type: ignore[attr-defined]
        self._known[item.nodeid] = (contract.kind, contract.name.rpartition(":")[2], summary)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell of a check that has ended, and of one that could not begin."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            outcome, message = _outcome(report)
        elif report.failed:
            outcome, message = FAILED, f"it cannot be cleared away: {_message(report)}"
        else:
            return
        kind, name, summary = self._known[report.nodeid]
        check = report.nodeid.rpartition("::")[2]
        self._tell(Outcome(kind, name, check, summary, outcome, message))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell where the contracts could not be made."""
        if report.failed:
            self._tell(Outcome("plugin", "", "collection", "The contracts can be made.", FAILED, _message(report)))


def _outcome(report: pytest.TestReport) -> tuple[str, str]:
    if report.skipped and isinstance(report.longrepr, tuple):
        return UNCHECKED, report.longrepr[2].removeprefix("Skipped: ")
    return (PASSED, "") if report.passed else (FAILED, _message(report))


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return what was raised, without the traceback."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    text = text.removeprefix("AssertionError: ").partition("\nassert ")[0].strip()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def run_contracts(
    plugin: str,
    kind: str | None,
    options: Mapping[str, object],
    tell: Callable[[Outcome], None],
    only: Mapping[str, str] | None = None,
) -> None:
    """Run the contracts of a plugin, in this process, and tell each outcome.

    Args:
        plugin: the plugin's name.
        kind: only components of this kind, or ``plugin``; None is everything.
        options: values for options of the components, by name.
        tell: is given each outcome as soon as it is known.
        only: the one check to run of a component, by the component's name; of others all are run.
    """
    os.environ[_ENVIRONMENT] = json.dumps({"plugin": plugin, "kind": kind, "options": dict(options)})
    with tempfile.TemporaryDirectory(prefix="lmflow-check-") as name:
        file = Path(name, "test_contracts.py")
        file.write_text(_FILE, encoding="utf-8")
        Path(name, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        flags = ["-c", f"{name}/pytest.ini", "--rootdir", name, "--basetemp", f"{name}/temp", "-q", "--tb=short"]
        pytest.main(
            [*flags, "-p", "no:cacheprovider", "--import-mode=importlib", str(file)], [_Reporter(tell, only or {})]
        )


def main(arguments: Sequence[str]) -> None:
    """Run the contracts that a JSON object asks for, and tell outcomes on stdout.

    Its keys are the arguments of :func:`run_contracts`; ``only`` may be left out.
    """
    asked = json.loads(arguments[0])
    # Whatever else is written to stdout, by pytest or by what is checked, is not an outcome.
    with os.fdopen(os.dup(1), "w") as channel, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        run_contracts(
            asked["plugin"],
            asked["kind"],
            asked["options"],
            lambda outcome: print(json.dumps(asdict(outcome)), file=channel, flush=True),
            asked.get("only"),
        )
