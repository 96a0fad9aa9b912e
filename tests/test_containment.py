"""What plugins do to the process while they load does not last, and is not taken for the work of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lmflow_core.plugins.containment import STRAY_THREADS
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord
from lmflow_core.testing.distributions import Project

Install = Callable[..., EntryPoint]

_GOOD = """
from lmflow_core.api import TunerSpec, hookimpl

@hookimpl
def lmflow_register_tuners():
    return [TunerSpec(name="good", target="nowhere:Good", summary="A tuner.")]
"""
_HOOK = """
from lmflow_core.api import TunerSpec, hookimpl

@hookimpl
def lmflow_register_tuners():
    {}
"""


def _loaded(install_plugin: Install, source: str) -> PluginRecord:
    """Return what became of a plugin; the one beside it must be loaded."""
    entries = [install_plugin("bad", source), install_plugin("good", _GOOD)]
    bad, good = load_plugins(PluginPolicy(), entries).records
    assert good.status == "ok"
    return bad


RAISED = {
    "raise BaseException('bad')": "BaseException: bad",
    "raise GeneratorExit": "GeneratorExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise SystemExit(0)": "SystemExit: 0",
    "raise BaseExceptionGroup('many', [KeyboardInterrupt()])": "BaseExceptionGroup: many (1 sub-exception)",
    "raise ValueError('\\ud800\\x1b[2J')": "ValueError: \\ud800\\x1b[2J",
    "raise type('E', (Exception,), {'__str__': lambda _: 1 / 0})": "E: (no message: ZeroDivisionError in its __str__)",
    "raise type('E', (Exception,), {'__str__': lambda _: exit()})": "E: (no message: SystemExit in its __str__)",
}


@pytest.mark.parametrize("line", RAISED)
@pytest.mark.parametrize("source", ["{}", _HOOK])
def test_whatever_is_raised_stays_with_its_plugin(install_plugin: Install, source: str, line: str) -> None:
    record = _loaded(install_plugin, source.format(line))
    assert (record.status, record.error) == ("broken", RAISED[line])
    assert record.details is not None


@pytest.mark.parametrize(
    "line",
    [
        "print('hello')",
        "import sys; sys.__stdout__.write('hello')",
        "import os; os.write(1, b'hello')",
        "import subprocess; subprocess.run(['echo', 'hello'])",
    ],
)
def test_what_a_plugin_writes_to_stdout_goes_to_stderr(
    install_plugin: Install, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    assert _loaded(install_plugin, f"{line}\n{_GOOD}").status == "ok"
    out, err = capfd.readouterr()
    assert (out, err.strip()) == ("", "hello")


@pytest.mark.parametrize(
    "line",
    [
        "import io; sys.stdout = sys.stderr = sys.excepthook = None",
        "os.chdir('/')",
        "os.environ.clear()",
        "sys.argv.clear()",
        "sys.setrecursionlimit(90)",
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "sys.settrace(lambda *_: None)",
    ],
)
def test_a_change_of_the_process_does_not_last(install_plugin: Install, line: str) -> None:
    def state() -> tuple[object, ...]:
        streams = (sys.stdout, sys.stderr, sys.excepthook)
        return (*streams, os.getcwd(), dict(os.environ), list(sys.argv), sys.getrecursionlimit(), sys.gettrace())

    before = (*state(), signal.getsignal(signal.SIGINT))
    _loaded(install_plugin, f"import os, sys\n{line}\n{_GOOD}")
    assert (*state(), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("source", [f"{_GOOD}\n{{}}", _HOOK])
def test_a_plugin_that_leaves_something_behind_is_left_out(install_plugin: Install, source: str) -> None:
    end = threading.Event()
    sys.end_of_test = end.wait  # type: ignore[attr-defined]
    line = "import atexit, os, sys, threading; atexit.register(os._exit, 7)"
    record = _loaded(install_plugin, source.format(f"{line}; threading.Thread(target=sys.end_of_test).start()"))
    assert record.specs == ()
    assert record.error == (
        "registers a function to run at the exit when it loads and starts a thread that outlives its loading; "
        "do so in a target"
    )
    STRAY_THREADS.clear()
    end.set()


def test_torch_that_a_plugin_makes_up_is_forgotten(install_plugin: Install) -> None:
    real = sys.modules.pop("torch", None)
    try:
        record = _loaded(
            install_plugin, f"import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n{_GOOD}"
        )
        assert record.status == "broken"
        assert "torch" not in sys.modules
    finally:
        if real is not None:
            sys.modules["torch"] = real


def test_specs_are_plain_copies(install_plugin: Install) -> None:
    text = "type('T', (str,), {'__str__': lambda self: 1 / 0, '__hash__': lambda self: 1 / 0})"
    names = "type('N', (tuple,), {'__eq__': lambda self, other: True})(('other',))"
    given = f"[TunerSpec(name={text}('bad'), target='a:b', summary='x', aliases={names})]"
    record = _loaded(install_plugin, _HOOK.format(f"return {given}"))
    (spec,) = record.specs
    assert (type(spec.name), spec.name, type(spec.aliases), spec.aliases) == (str, "bad", tuple, ("other",))


def _installed(folder: Path, source: str, metadata: dict[str, bytes] | None = None) -> dict[str, str]:
    """Install a plugin ``hostile`` into a folder; return the environment in which it is found."""
    project = Project("lmflow-hostile", {"hostile_module.py": source}, {"hostile": "hostile_module"})
    project.unpack(folder)
    for name, content in (metadata or {}).items():
        (folder / f"{project.stem}.dist-info" / name).write_bytes(content)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "LMFLOW_CACHE": str(folder / "cache")}


def _plugins(environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lmflow_core", "plugins", "--json", *more]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def _listed(finished: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    assert finished.returncode == 0, finished.stderr
    listed = {plugin["name"]: plugin for plugin in json.loads(finished.stdout)["plugins"]}
    assert listed["lora"]["status"] == "ok"
    return listed


@pytest.mark.parametrize(
    "line",
    [
        "import sys; sys.__stdout__.close()",
        "import sys; sys.__stdout__.detach()",
        "import os; os.close(1); os.close(2)",
        "import atexit, os; atexit.register(os._exit, 7)",
        "import threading, time; threading.Thread(target=time.sleep, args=(100,)).start()",
        "import os; os.fork()",
    ],
)
def test_a_listing_is_one_document_beside_a_hostile_plugin(tmp_path: Path, line: str) -> None:
    assert "hostile" in _listed(_plugins(_installed(tmp_path, f"{_GOOD}\n{line}\n")))


_HEAD = b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: "
METADATA = {
    "metadata that is not UTF-8": {"METADATA": _HEAD + b"\xff\n"},
    "entry points that are not UTF-8": {"entry_points.txt": b"[lmflow]\nhostile = \xff\n"},
    "a need that is too long": {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: 1\nRequires-Dist: lmflow-core>="
        + b"9" * 5000
    },
}


@pytest.mark.parametrize("name", METADATA)
def test_damaged_metadata_leaves_out_its_plugin_alone(tmp_path: Path, name: str) -> None:
    listed = _listed(_plugins(_installed(tmp_path, _GOOD, METADATA[name])))
    assert next(plugin for key, plugin in listed.items() if "hostile" in key)["status"] in ("broken", "incompatible")


def test_a_stranger_with_the_name_of_an_official_plugin_is_a_conflict(tmp_path: Path) -> None:
    metadata = {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-lisa\nVersion: 9\n",
        "entry_points.txt": b"[lmflow]\nlisa = hostile_module\n",
    }
    finished = _plugins(_installed(tmp_path, _GOOD, metadata))
    both = [plugin for plugin in json.loads(finished.stdout)["plugins"] if plugin["name"] == "lisa"]
    assert [plugin["status"] for plugin in both] == ["conflict", "conflict"]
    assert any(str(tmp_path) in plugin["location"] for plugin in both)


def test_the_start_after_a_plugin_ended_the_process_names_it(tmp_path: Path) -> None:
    environment = _installed(tmp_path, f"{_GOOD}\nimport os; os._exit(0)\n")
    assert _plugins(environment).stdout == ""
    finished = _plugins(environment, "--no-plugin", "hostile")
    assert "an earlier start ended while plugin hostile was loading" in finished.stderr
    assert _listed(finished)["hostile"]["status"] == "disabled"
    assert _plugins(environment, "--no-plugin", "hostile").stderr == ""


def _interruptible() -> None:
    """Undo what a shell does to those it starts in the background, whose children ignore an interrupt as well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_plugin_that_never_ends_is_named_while_it_loads(tmp_path: Path) -> None:
    environment = _installed(tmp_path, "import time; time.sleep(1000)")
    command = [sys.executable, "-m", "lmflow_core", "plugins"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=_interruptible
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "plugin hostile has been loading for 5 seconds; to leave it out, add --no-plugin hostile" in told
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert process.returncode == 130
