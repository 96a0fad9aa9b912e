"""A first use of a GGUF file in a process of its own: llama.cpp ends the process that gives it what it does not expect.

A file that came through is remembered by its place, size and time, so that only its first use takes longer.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

from lmflow_core.api import ModelError, cache_root

_LONGEST_SECONDS = 900
_PROGRAM = "import sys; from lmflow_gguf.trial import main; main(sys.argv[1:])"


def try_file(file: Path, adapter: Path | None = None) -> None:
    """Load a file, and an adapter on it, and compute one token, elsewhere.

    A file that llama.cpp refuses in an orderly way is no affair of this: who loads it next tells why.

    Raises:
        ModelError: llama.cpp dies of it, or does not come to an end.
    """
    files = [file] if adapter is None else [file, adapter]
    mark = cache_root() / "gguf" / _key(files)
    if mark.exists():
        return
    status = _status([str(used) for used in files])
    if status < 0:
        raise ModelError(f"{file} is damaged: llama.cpp ends with {signal.Signals(-status).name} when it reads it")
    if status == 0:
        _remember(mark)


def _key(files: list[Path]) -> str:
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((importlib.metadata.version("llama-cpp-python"), stats)).encode()).hexdigest()[:32]


def _status(files: list[str]) -> int:
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _PROGRAM, *files]
    try:
        ended = subprocess.run(command, env=found, capture_output=True, timeout=_LONGEST_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{files[0]} is damaged: llama.cpp comes to no end with it") from error
    return ended.returncode


def _remember(mark: Path) -> None:
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:  # then it is tried again
        return


def main(files: list[str]) -> None:
    """Load and compute: what :func:`try_file` runs."""
    from lmflow_gguf.contexts import Session
    from lmflow_gguf.runtime import Weights

    try:
        Weights(Path(files[0]), vocabulary_only=True)
        session = Session(Weights(Path(files[0])), 8, threads=1, adapter=Path(files[1]) if files[1:] else None)
        session.evaluate([0], outputs=True)
        session.logits(1)
    except ModelError:
        sys.exit(1)
