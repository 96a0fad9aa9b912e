"""Checkpoints that are whole or absent, and finding the last one that is whole."""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lmflow_core.api import RequestError

PARTIAL = ".partial"
_NAME = re.compile(r"^checkpoint-(\d+)$")
STATE = "trainer_state.json"
_NEEDED = ("optimizer.pt", "scheduler.pt")


def last_whole_checkpoint(folder: Path) -> Path:
    """Return the newest checkpoint that can be read, telling of newer ones that are damaged.

    Raises:
        RequestError: there is none.
    """
    found = sorted(_checkpoints(folder), reverse=True)
    for _, checkpoint in found:
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint
        print(f"lmflow: {checkpoint} is damaged ({problem}); looking for the one before", file=sys.stderr)
    what = f"{len(found)} damaged checkpoints and no whole one" if found else "no checkpoint to resume from"
    raise RequestError(f"{folder} holds {what}; leave out --resume and add --overwrite to start anew")


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return [(int(match.group(1)), entry) for entry in entries if (match := _NAME.match(entry.name))]


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when it is whole."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{STATE} is missing or broken"
    weights = sorted(checkpoint.glob("*.safetensors"))
    if not weights:
        return "it has no weights"
    for file in weights:
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{file.name} is broken"
    missing = [name for name in _NEEDED if not _is_zip(checkpoint / name)]
    return f"{missing[0]} is missing or broken" if missing else None


def _is_zip(file: Path) -> bool:
    """Whether a file of torch is complete: it is a zip archive, whose directory stands at its end."""
    return zipfile.is_zipfile(file)


def put_in_place(partial: Path, final: Path) -> None:
    """Give a checkpoint that was written aside its name, once its bytes are on the disk."""
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    os.replace(partial, final)
