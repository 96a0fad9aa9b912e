"""Plugins that do what none should while they load, each beside the installed ones, under ``lmflow plugins --json``.

    python dev/campaigns/hostile_plugins.py

A kind survives when the command ends with status 0 and one JSON document in which the other plugins are loaded and
this one is there, healthy or with its cause. Of those that end the process, the next start must name the plugin; of
those that never end, the command must name it while it waits. ``--only WORD`` tries the kinds whose name holds a word.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tally import Tally

from lmflow_core.report.console import progress
from lmflow_core.testing.distributions import Project

_PATIENCE = 30
_WARNING_AFTER = 9
_MODULE = "hostile_module"
_HEAD = "from lmflow_core.api import TunerSpec, hookimpl\n"
_SPEC = "TunerSpec(name='bad', target='nowhere:Bad', summary='A tuner.')"
_GOOD = f"{_HEAD}@hookimpl\ndef lmflow_register_tuners():\n    return [{_SPEC}]\n"


@dataclass(frozen=True)
class Hostile:
    """A plugin: its source, and files of its metadata that are written as they stand here instead."""

    source: str = _GOOD
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    end: str = "survives"


_RAISED = {
    "an error": "raise ValueError('bad')",
    "an error without a message": "raise ValueError",
    "an error of 100 MB": "raise ValueError('x' * 10**8)",
    "an error of many lines": "raise ValueError('a\\n' * 1000)",
    "an error that colours the terminal": "raise ValueError('\\x1b[31mred\\x1b]0;title\\x07')",
    "an error with a lone surrogate": "raise ValueError('\\ud800')",
    "a base exception": "raise BaseException('bad')",
    "the end of a generator": "raise GeneratorExit",
    "an interrupt": "raise KeyboardInterrupt",
    "an exit": "raise SystemExit",
    "an exit with status 0": "import sys; sys.exit(0)",
    "an exit with a message": "import sys; sys.exit('bye')",
    "a group of errors": "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
    "a group of base exceptions": "raise BaseExceptionGroup('many', [KeyboardInterrupt(), SystemExit(3)])",
    "the end of an iteration": "raise StopIteration",
    "an endless recursion": "(f := lambda: f())()",
    "no memory": "raise MemoryError",
    "a missing module": "import no_such_module_anywhere",
    "a syntax error": "exec('def')",
    "an error that is not to be read": (
        "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0, '__repr__': lambda self: 1 / 0})('x')"
    ),
    "an error whose message exits": (
        "raise type('E', (Exception,), {'__str__': lambda self: (_ for _ in ()).throw(SystemExit(0))})"
    ),
    "an error whose message is an interrupt": (
        "raise type('E', (Exception,), {'__str__': lambda self: (_ for _ in ()).throw(KeyboardInterrupt())})"
    ),
    "an error whose message is no text": "raise type('E', (Exception,), {'__str__': lambda self: 5})",
    "an error whose message is a strange text": (
        "S = type('S', (str,), {'__str__': None, 'encode': None})\n"
        "raise type('E', (Exception,), {'__str__': lambda self: S('x')})"
    ),
    "an error with a strange class name": "raise type('\\x1b[2J\\n', (Exception,), {})('x')",
    "an error whose cause is itself": "e = ValueError('x'); e.__cause__ = e; raise e",
    "an error with a chain of 5,000": (
        "e = None\nfor n in range(5000):\n    n = ValueError(n); n.__context__ = e; e = n\nraise e"
    ),
    "an error with strange notes": "e = ValueError('x'); e.__notes__ = 5; raise e",
    "a click exit": "import click; raise click.exceptions.Exit(3)",
    "a click usage error": "import click; raise click.UsageError('bad')",
    "a closed pipe": "raise BrokenPipeError",
    "an error of our own": "from lmflow_core.errors import RequestError; raise RequestError('bad')",
}
_DONE = {
    "prints": "print('hello')",
    "prints and flushes": "print('hello', flush=True)",
    "prints a megabyte": "print('x' * 10**6)",
    "writes to the real stdout": "import sys; sys.__stdout__.write('hello')",
    "writes to file descriptor 1": "import os; os.write(1, b'hello\\n')",
    "writes by a child": "import subprocess; subprocess.run(['echo', 'hello'])",
    "writes bytes to the buffer": "import sys; sys.__stdout__.buffer.write(b'hello')",
    "closes stdout": "import sys; sys.stdout.close()",
    "closes the real stdout": "import sys; sys.__stdout__.close()",
    "closes file descriptor 1": "import os; os.close(1)",
    "closes file descriptor 2": "import os; os.close(2)",
    "closes both": "import os; os.close(1); os.close(2)",
    "takes stdout apart": "import sys; sys.__stdout__.detach()",
    "replaces stdout": "import io, sys; sys.stdout = io.StringIO()",
    "replaces stdout and stderr by nothing": "import sys; sys.stdout = sys.stderr = None",
    "replaces the real stdout": "import io, sys; sys.__stdout__ = io.StringIO()",
    "points file descriptor 1 elsewhere": "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
    "closes stdin": "import sys; sys.stdin.close()",
    "warns": "import warnings; warnings.warn('careful')",
    "makes warnings errors": "import warnings; warnings.simplefilter('error')",
    "sets up logging": "import logging, sys; logging.basicConfig(stream=sys.stdout, level=0, force=True)",
    "changes the directory": "import os; os.chdir('/')",
    "clears the environment": "import os; os.environ.clear()",
    "changes the home": "import os; os.environ['HOME'] = '/nowhere'",
    "clears the arguments": "import sys; sys.argv.clear()",
    "replaces the arguments": "import sys; sys.argv = ['x', 'finetune']",
    "ignores interrupts": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "sets an alarm": "import signal; signal.signal(signal.SIGALRM, lambda *_: None); signal.alarm(60)",
    "sets a low recursion limit": "import sys; sys.setrecursionlimit(60)",
    "replaces the hook of exceptions": "import sys; sys.excepthook = None",
    "stops collecting garbage": "import gc; gc.disable()",
    "traces everything": "import sys; sys.settrace(lambda *_: None)",
    "starts a thread that never ends": (
        "import threading, time; threading.Thread(target=time.sleep, args=(10**6,)).start()"
    ),
    "starts a daemon": "import threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    "runs at the exit and changes the status": "import atexit, os; atexit.register(os._exit, 7)",
    "runs at the exit and fails": "import atexit\n@atexit.register\ndef end():\n    raise SystemExit(9)",
    "runs at the exit and prints": "import atexit\n@atexit.register\ndef end():\n    print('bye')",
    "forks": "import os; os.fork()",
    "starts a child that stays": "import subprocess; subprocess.Popen(['sleep', '3'])",
    "makes up torch": "import sys, types; sys.modules['torch'] = types.ModuleType('torch')",
    "imports torch": "import torch",
    "takes its own module away": "import sys; del sys.modules[__name__]",
    "puts something else in its place": "import sys; sys.modules[__name__] = 5",
    "puts itself at the head of the path": "import sys; sys.path.insert(0, '/nowhere')",
    "changes the locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
    "changes the mask of files": "import os; os.umask(0o777)",
    "opens a thousand files": "FILES = [open('/dev/null') for _ in range(900)]",
    "takes 500 MB": "MEMORY = bytearray(500 * 2**20)",
    "defines a getattr of its module": "def __getattr__(name):\n    raise SystemExit(4)",
    "defines a dir of its module": "def __dir__():\n    raise KeyboardInterrupt",
    "has a strange file": "__file__ = type('F', (), {'__str__': lambda self: 1 / 0})()",
    "has a file of control characters": "__file__ = '\\x1b[2J'",
}
_METHODS = "{m: None for m in ('__eq__', '__lt__', '__str__', '__len__', 'encode')} | {'__hash__': str.__hash__}"
_TEXT = f"type('T', (str,), {_METHODS})"
_GIVEN = {
    "nothing": "None",
    "a number": "5",
    "a text": "'bad'",
    "a list of numbers": "[1, 2]",
    "no spec": "[object()]",
    "the class instead of a spec": "[TunerSpec]",
    "another kind of spec": "[__import__('lmflow_core.api').api.DecoderSpec(name='x', target='a:b', summary='x')]",
    "a name that is a list": "[TunerSpec(name=['x'], target='a:b', summary='x')]",
    "a name that is a number": "[TunerSpec(name=5, target='a:b', summary='x')]",
    "a name that is nothing": "[TunerSpec(name=None, target='a:b', summary='x')]",
    "a name of a megabyte": "[TunerSpec(name='x' * 10**6, target='a:b', summary='x')]",
    "a name with a control character": "[TunerSpec(name='x\\x1b', target='a:b', summary='x')]",
    "a name with a line break": "[TunerSpec(name='x\\n', target='a:b', summary='x')]",
    "a target that is bytes": "[TunerSpec(name='x', target=b'a:b', summary='x')]",
    "a summary that is a list": "[TunerSpec(name='x', target='a:b', summary=['x'])]",
    "a summary that colours the terminal": "[TunerSpec(name='x', target='a:b', summary='\\x1b[31m')]",
    "aliases that are a text": "[TunerSpec(name='x', target='a:b', summary='x', aliases='abc')]",
    "aliases that are numbers": "[TunerSpec(name='x', target='a:b', summary='x', aliases=(1, 2))]",
    "an alias that is its name": "[TunerSpec(name='x', target='a:b', summary='x', aliases=('x',))]",
    "requires that is no name": "[TunerSpec(name='x', target='a:b', summary='x', requires=('x; rm -rf',))]",
    "options that are none": "[TunerSpec(name='x', target='a:b', summary='x', options=5)]",
    "a learning rate that is a text": "[TunerSpec(name='x', target='a:b', summary='x', learning_rate='fast')]",
    "one name twice": f"[{_SPEC}, {_SPEC}]",
    "specs without end": f"({_SPEC} for _ in iter(int, 1))",
    "a name with hostile methods": f"[TunerSpec(name={_TEXT}('bad'), target='a:b', summary='x')]",
    "aliases with hostile methods": (
        "[TunerSpec(name='x', target='a:b', summary='x', aliases=type('T', (tuple,), {'__iter__': None})(('y',)))]"
    ),
    "a spec whose name is a failing property": (
        "[type('S', (TunerSpec,), {'name': property(lambda self: 1 / 0, lambda self, value: None)})"
        "(name='x', target='a:b', summary='x')]"
    ),
    "a spec changed behind its back": (
        "(s := TunerSpec(name='x', target='a:b', summary='x'), object.__setattr__(s, 'name', 5))[:1]"
    ),
    "a spec without fields": "[object.__new__(TunerSpec)]",
    "specs that fail half-way": f"(1 / n or {_SPEC} for n in (1, 0))",
    "an iterator that is interrupted": "(_ for _ in ()).throw(KeyboardInterrupt())",
    "an object that is true or fails": "type('B', (), {'__bool__': lambda self: 1 / 0})()",
}
_METADATA = {
    "metadata that is not UTF-8": {"METADATA": b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: 1\xff\xfe\n"},
    "entry points that are not UTF-8": {"entry_points.txt": b"[lmflow]\nhostile = hostile_\xff\xfe\n"},
    "entry points without a section": {"entry_points.txt": b"hostile = lmflow\n[lmflow]\nhostile = hostile_module\n"},
    "entry points with a broken line": {"entry_points.txt": b"[lmflow]\nhostile\n"},
    "an entry point without a module": {"entry_points.txt": b"[lmflow]\nhostile = \n"},
    "an entry point with a strange module": {"entry_points.txt": b"[lmflow]\nhostile = ../../etc:x y\n"},
    "an entry point with a control character": {"entry_points.txt": b"[lmflow]\nhos\x1b[2Jtile = hostile_module\n"},
    "a version of 5,000 digits": {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: " + b"9" * 5000 + b"\n"
    },
    "a need of a version of 5,000 digits": {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: 1\nRequires-Dist: lmflow-core>="
        + b"9" * 5000
    },
    "a need that cannot be read": {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-hostile\nVersion: 1\nRequires-Dist: lmflow-core ???\n"
    },
    "no metadata": {"METADATA": b""},
    "metadata of binary zeros": {"METADATA": b"\x00" * 1000},
    "the name of an official plugin": {
        "METADATA": b"Metadata-Version: 2.1\nName: lmflow-lisa\nVersion: 9\n",
        "entry_points.txt": b"[lmflow]\nlisa = hostile_module\n",
    },
}
_ENDING = {
    "ends the process": "import os; os._exit(0)",
    "is killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "is terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "reads from nowhere": "import ctypes; ctypes.string_at(0)",
    "aborts": "import os; os.abort()",
}
_ENDLESS = {
    "never ends": "while True:\n    pass",
    "sleeps for ever": "import time; time.sleep(10**6)",
    "waits for a lock": "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
    "waits for input": "import os; os.read(os.pipe()[0], 1)",
}


def _in_hook(line: str) -> str:
    body = "\n".join(f"    {part}" for part in line.split("\n"))
    return f"{_HEAD}@hookimpl\ndef lmflow_register_tuners():\n{body}\n    return [{_SPEC}]\n"


def kinds() -> dict[str, Hostile]:
    """Return every kind of plugin, by what it does."""
    found: dict[str, Hostile] = {}
    for name, line in {**{f"raises {name}": line for name, line in _RAISED.items()}, **_DONE}.items():
        found[f"{name}, at import"] = Hostile(f"{_GOOD}{line}\n")
        if not line.startswith(("def ", "__file__")):
            found[f"{name}, in a hook"] = Hostile(_in_hook(line))
    for name, value in _GIVEN.items():
        found[f"gives {name}"] = Hostile(f"{_HEAD}@hookimpl\ndef lmflow_register_tuners():\n    return {value}\n")
    for name, files in _METADATA.items():
        found[f"has {name}"] = Hostile(metadata=files)
    for end, lines in (("dies", _ENDING), ("never ends", _ENDLESS)):
        for name, line in lines.items():
            found[f"{name}, at import"] = Hostile(f"{_GOOD}{line}\n", end=end)
            found[f"{name}, in a hook"] = Hostile(_in_hook(line), end=end)
    return found


def problem_of(hostile: Hostile, folder: Path) -> str | None:
    """Run ``lmflow plugins --json`` beside a hostile plugin; return what was lost, or None."""
    site = folder / "site"
    project = Project("lmflow-hostile", {f"{_MODULE}.py": hostile.source}, {"hostile": _MODULE})
    project.unpack(site)
    for name, content in hostile.metadata.items():
        (site / f"{project.stem}.dist-info" / name).write_bytes(content)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "LMFLOW_CACHE": str(folder / "cache")}
    if hostile.end == "never ends":
        return _problem_of_endless(environment)
    try:
        first = _plugins(environment)
        if hostile.end == "dies":
            return _problem_of_dead(first, environment)
    except subprocess.TimeoutExpired:
        return "it does not end"
    return _problem_of_listing(first)


def _plugins(environment: Mapping[str, str], *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lmflow_core", "plugins", "--json", *more]
    return subprocess.run(command, capture_output=True, env=environment, timeout=_PATIENCE, stdin=subprocess.DEVNULL)


def _problem_of_listing(finished: subprocess.CompletedProcess[bytes]) -> str | None:
    if finished.returncode:
        return f"status {finished.returncode}: {finished.stderr.decode(errors='replace')[-300:]}"
    if b"Traceback" in finished.stderr:
        return f"a traceback: {finished.stderr.decode(errors='replace')[-300:]}"
    try:
        listed = {plugin["name"]: plugin for plugin in json.loads(finished.stdout)["plugins"]}
    except ValueError:
        return f"no JSON document: {finished.stdout[:200]!r}"
    if listed.get("lora", {}).get("status") != "ok":
        return "an official plugin is not loaded"
    if not any(name.startswith("hos") or plugin["status"] == "conflict" for name, plugin in listed.items()):
        return "it is not listed"
    return None


def _problem_of_dead(first: subprocess.CompletedProcess[bytes], environment: Mapping[str, str]) -> str | None:
    if first.stdout:
        return "it should have ended the process"
    if b"plugin hostile" not in _plugins(environment).stderr:
        return "the next start does not name it"
    return _problem_of_listing_without(environment)


def _problem_of_listing_without(environment: Mapping[str, str]) -> str | None:
    return _problem_of_listing(_plugins(environment, "--no-plugin", "hostile"))


def _problem_of_endless(environment: Mapping[str, str]) -> str | None:
    command = [sys.executable, "-m", "lmflow_core", "plugins", "--json"]
    try:
        subprocess.run(command, capture_output=True, env=environment, timeout=_WARNING_AFTER)
    except subprocess.TimeoutExpired as error:
        if b"plugin hostile has been loading" not in (error.stderr or b""):
            return "it is not named while it loads"
        return _problem_of_listing_without(environment)
    return "it should never end"


def main() -> None:
    """Try every kind and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD")
    word = parser.parse_args().only
    tally = Tally()
    chosen = {name: hostile for name, hostile in kinds().items() if word in name}
    for name, hostile in progress(chosen.items(), "hostile plugins"):
        with tempfile.TemporaryDirectory() as folder:
            problem = problem_of(hostile, Path(folder))
        tally.add(hostile.end, problem and f"{name}: {problem}")
    tally.finish()


if __name__ == "__main__":
    main()
