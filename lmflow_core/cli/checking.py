"""``lmflow plugins check``: runs the contracts of a plugin in a process of its own, and shows what each check gave."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lmflow_core.cli.results import print_json
from lmflow_core.errors import LmflowError, RequestError, printable
from lmflow_core.report import console

_COLORS = {"passed": "green", "failed": "red", "not checked": "yellow"}
_MARKS = {"passed": "ok", "failed": "FAILED", "not checked": "--"}
_WIDTH = 8
_LONGEST = 1000


def check_plugin(name: str, kind: str | None, options: Mapping[str, object], *, as_json: bool) -> bool:
    """Run the contracts of a plugin, show each outcome, and return whether none failed.

    Args:
        name: of the plugin.
        kind: only components of this kind, or ``plugin``; None is everything.
        options: values for options of the components, by name.
        as_json: show one JSON document at the end instead.

    Raises:
        RequestError: pytest, which runs the checks, is not installed.
        LmflowError: the checks ended before their end.
    """
    if importlib.util.find_spec("pytest") is None:
        raise RequestError("lmflow plugins check needs pytest: pip install 'pytest>=8.4'")
    outcomes: list[dict[str, Any]] = []
    for outcome in _outcomes({"plugin": name, "kind": kind, "options": dict(options)}):
        if not as_json:
            _show(outcome, outcomes)
        outcomes.append(outcome)
    counts = Counter(str(outcome["outcome"]) for outcome in outcomes)
    if as_json:
        print_json({"plugin": name, "counts": counts, "checks": outcomes})
    else:
        listed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        console.show(f"\n{len(outcomes)} checks: {listed or 'none'}.")
    return bool(outcomes) and not counts["failed"]


def _outcomes(asked: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """Yield outcomes as they come from a process: a contract loads and changes what this one need not have."""
    command = [sys.executable, "-m", "lmflow_core.testing", json.dumps(asked)]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        errors.seek(0)
        if process.returncode:
            told = printable(errors.read().strip()[-_LONGEST:])
            raise LmflowError(f"the checks of {asked['plugin']} ended with status {process.returncode}: {told}")


def _show(outcome: Mapping[str, Any], before: list[dict[str, Any]]) -> None:
    of = (outcome["kind"], outcome["name"])
    if not before or of != (before[-1]["kind"], before[-1]["name"]):
        console.show(f"{'' if not before else chr(10)}{outcome['kind'].replace('_', ' ')} {outcome['name']}", bold=True)
    result = str(outcome["outcome"])
    console.show(f"  {_MARKS[result].ljust(_WIDTH)}", end="", color=_COLORS[result])
    console.show(outcome["summary"])
    if outcome["message"]:
        for line in str(outcome["message"]).splitlines():
            console.show(f"  {' ' * _WIDTH}{line}", dim=True)
