"""What one process of a job sees of its engine: ``python -m lmflow_core.testing.engine_probe`` and what it takes.

Every process writes what it saw into the folder, as JSON under its process number. Launchers start it several times.
Each probe starts the engine once: processes that joined a second time could meet what is left of the first.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmflow_core.contracts.engine import CommandLine, EngineSpec, World
from lmflow_core.options import build
from lmflow_core.plugins.discovery import HEAVY_MODULES
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import load_launcher

# What is passed around, so that each process passes something else; any value that JSON holds may be.
VALUES: tuple[Any, ...] = (None, True, 7, "Ünï", [1, {"a": [None, "b"]}], {"nested": {"list": [0.5]}}, "x" * 100_000)


class ProbeError(Exception):
    """Raised inside of an engine's context, to see what it leaves behind."""


def state() -> dict[str, Any]:
    """Return what an engine must leave as it was: variables, folder, and the process group."""
    group = "torch.distributed" in sys.modules and _has_group(sys.modules["torch.distributed"])
    return {"variables": dict(os.environ), "folder": os.getcwd(), "group": group}


def _has_group(distributed: Any) -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs, a few words for each."""
    names = sorted(before["variables"].items() ^ after["variables"].items())
    found = [f"the variable {name}" for name in dict.fromkeys(name for name, _ in names)]
    found += ["the working directory"] if before["folder"] != after["folder"] else []
    return found + (["the process group"] if before["group"] != after["group"] else [])


def observed(engine: Any) -> dict[str, Any]:
    """Return what a process sees of an engine that it starts."""
    before = state()
    with engine.start() as world:
        told = {"is_world": isinstance(world, World), "rank": world.rank, "size": world.size}
        gathered = [engine.all_gather([world.rank, value]) for value in VALUES]
        arguments = engine.trainer_arguments()
        told |= {"gathered": gathered, "arguments": sorted(arguments), "is_mapping": isinstance(arguments, Mapping)}
    return {**told, "behind": changes(before, state())}


def observed_failing(engine: Any) -> dict[str, Any]:
    """Return what a process sees of an engine within which an error is raised."""
    before, raised, rank = state(), False, -1
    try:
        with engine.start() as world:
            rank = world.rank
            raise ProbeError
    except ProbeError:
        raised = True
    return {"rank": rank, "error_passes": raised, "behind_error": changes(before, state())}


LAUNCHING = "launching"
PROBES = {"whole": observed, "failing": observed_failing}


def observed_launching(provided: Provided[EngineSpec], options: Any, folder: Path) -> dict[str, Any]:
    """Return what a launcher does with a command whose options ask for nothing, and what was imported for it."""
    launcher = load_launcher(provided)(options)
    status = launcher.launch(CommandLine(("--version",), folder / "out", "cpu", False))
    return {"status": status, "heavy": sorted(set(HEAVY_MODULES).intersection(sys.modules))}


def main() -> None:
    """Probe the engine, or its launcher, that the arguments name."""
    probe, name, values, folder = sys.argv[1:]
    engines = Catalogue.discover().of(EngineSpec)
    spec = engines.find(name).spec
    options = build(spec.options, json.loads(values)) if spec.options else None
    if probe == LAUNCHING:
        found = observed_launching(engines.find(name), options, Path(folder))
    else:
        found = PROBES[probe](engines.load(name)(options))
    Path(folder, f"{os.getpid()}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
