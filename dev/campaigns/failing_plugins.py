"""Plugins that fail at work: each kind of target, at each of its methods, with each kind of error, by real commands.

    python dev/campaigns/failing_plugins.py

A case survives when the command ends with a message that names the plugin, without a traceback and without claiming to
have done its work. Each runs in this process with a tiny model.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tally import Tally, campaign_arguments

from lmflow_core.cli.main import run
from lmflow_core.contracts.hooks import SPEC_CLASSES
from lmflow_core.plugins import discovery
from lmflow_core.plugins.installed import entry_points
from lmflow_core.report.console import progress
from lmflow_core.testing.distributions import Project
from lmflow_core.testing.tiny import make_tiny_model

_MORE: dict[str, dict[str, Any]] = {
    "dataset": {"fields": "odd"},
    "source": {"suffixes": (".odd",)},
    "objective": {"examples": ("text",)},
}
_SOURCE = """
from lmflow_core.api import hookimpl
from lmflow_core.contracts.hooks import SPEC_CLASSES
MORE = {more!r}

def _hook(spec_class):
    def register():
        target = f"{{__name__}}:{{spec_class.kind}}"
        yield spec_class(name="failing", target=target, summary="Fails.", **MORE.get(spec_class.kind, {{}}))
    register.__name__ = spec_class.hook()
    return hookimpl(register)

for _class in SPEC_CLASSES:
    globals()[_class.hook()] = _hook(_class)

def __getattr__(name):
    if name in TARGETS:
        return TARGETS[name]
    raise AttributeError(name)

TARGETS = {{}}

def failing(error):
    def fail(*arguments, **options):
        raise error()
    return fail
"""


class _Unreadable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


_ERRORS: dict[str, Callable[[], BaseException]] = {
    "TypeError": lambda: TypeError("bad value"),
    "KeyError": lambda: KeyError("missing"),
    "RuntimeError": lambda: RuntimeError("bad\x1b[31m state"),
    "StopIteration": StopIteration,
    "SystemExit": lambda: SystemExit(0),
    "GeneratorExit": GeneratorExit,
    "BaseException": BaseException,
    "a group": lambda: BaseExceptionGroup("many", [BaseException()]),
    "unreadable": _Unreadable,
    "RecursionError": RecursionError,
}


def _commands(folder: Path) -> dict[str, Sequence[str]]:
    """Return, by kind, a command that uses the plugin's target of that kind."""
    model, rows, odd = str(folder / "model"), folder / "rows.json", folder / "rows.odd"
    rows.write_text(json.dumps([{"text": "hello there"}] * 4), encoding="utf-8")
    odd.write_text("odd", encoding="utf-8")
    train = ["finetune", "--model", model, "--dataset", str(rows), "--output", str(folder / "out"), "--max-steps", "1"]
    train += ["--dataset-format", "text-only", "--overwrite"]
    answer = ["generate", "--model", model, "--prompt", "hello", "--max-new-tokens", "2"]
    return {
        "model": ["generate", "--model", "failing:failing", "--prompt", "hello"],
        "objective": [*train, "--objective", "failing"],
        "tuner": [*train, "--tuner", "failing"],
        "optimizer": [*train, "--optimizer", "failing"],
        "template": [*answer, "--template", "failing"],
        "dataset": ["data", "check", str(rows), "--dataset-format", "failing"],
        "source": ["data", "check", str(odd)],
        "decoder": [*answer, "--decoder", "failing"],
        "exporter": ["export", "--model", model, "--output", str(folder / "exported"), "--format", "failing"],
        "attention": [*answer, "--attention", "failing"],
        "position_scaling": [*answer, "--position-scaling", "failing", "--position-scaling-factor", "2"],
        "benchmark": ["evaluate", "--model", model, "--benchmark", "failing"],
        "engine": [*train, "--engine", "failing"],
        "command": ["failing"],
    }


def _targets(
    module: Any, kind: str, contract: type | None, error: Callable[[], BaseException]
) -> Iterator[tuple[str, Any]]:
    """Yield targets that fail when they are made, or at one method after the other."""
    fail = module.failing(error)
    yield "when it is called", fail
    methods = [name for name, value in vars(contract or object).items() if callable(value) and not name.startswith("_")]
    attributes = dict.fromkeys(getattr(contract, "__annotations__", {}))
    for name in methods:
        members = {**attributes, **{other: lambda *a, **o: None for other in methods}, name: fail}
        # Methods of a class of the plugin, so that the frames of the others are its own, too.
        yield (
            f"in {name}()",
            type(kind, (), {**members, "__init__": lambda self, *a: None, "__module__": module.__name__}),
        )


def _problem(command: Sequence[str]) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run(list(command))
        except BaseException as error:
            return f"{type(error).__name__} comes through"
    if "Traceback" in err.getvalue():
        return "a traceback"
    if "\x1b[31m" in err.getvalue():
        return "control characters reach the terminal"
    if status and "failing" not in err.getvalue():
        return f"it is not named: {err.getvalue()[-200:]!r}"
    return None


def main() -> None:
    """Try every kind, method and error, and print the table."""
    cases, _ = campaign_arguments(__doc__, 10_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny_model(folder / "model")
        sys.path.insert(0, name)
        project = Project(
            "lmflow-failing", {"lmflow_failing.py": _SOURCE.format(more=_MORE)}, {"failing": "lmflow_failing"}
        )
        entries = [*entry_points(), *project.unpack(folder).entry_points]
        discovery.installed_entry_points = lambda: entries  # type: ignore[attr-defined]
        import lmflow_failing as module  # type: ignore[import-not-found]

        tally = Tally()
        commands = _commands(folder)
        tried = [
            (spec_class, told, moment, target)
            for spec_class in SPEC_CLASSES
            for told, error in _ERRORS.items()
            for moment, target in _targets(module, spec_class.kind, spec_class.contract, error)
        ]
        for spec_class, told, moment, target in progress(tried[:cases], "failing plugins"):
            module.TARGETS.clear()
            module.TARGETS[spec_class.kind] = target
            problem = _problem(commands[spec_class.kind])
            tally.add(spec_class.kind, problem and f"{told} {moment}: {problem}")
        tally.finish()


if __name__ == "__main__":
    main()
