"""Checkpoints that are whole or absent, and finding the last one that is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmflow_core.api import Recipe, RequestError

PARTIAL = ".partial"
_NAME = re.compile(r"^checkpoint-(\d+)$")
STATE = "trainer_state.json"
FIGURES = "figures.json"
_MARK = "checkpoint.json"


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
        print(f"lmflow: skipping {checkpoint}, which is damaged: {problem}", file=sys.stderr)
    what = f"{len(found)} damaged checkpoints and no whole one" if found else "no checkpoint to resume from"
    raise RequestError(f"{folder} holds {what}; leave out --resume and add --overwrite to start anew")


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    entries = folder.iterdir() if folder.is_dir() else ()
    return [(int(match.group(1)), entry) for entry in entries if (match := _NAME.match(entry.name))]


def rotate(folder: Path, limit: int, best: str | None) -> None:
    """Remove the oldest checkpoints beyond a limit, but neither the newest whole one nor the best.

    Damaged ones do not count, so that none takes the place of a whole one; they go once there is a whole one.
    """
    steps = sorted(_checkpoints(folder))
    whole = [checkpoint for _, checkpoint in steps if damage(checkpoint) is None]
    kept = {*whole[-1:], *(checkpoint for checkpoint in whole if str(checkpoint) == best)}
    for checkpoint in reversed(whole):
        if len(kept) < limit:
            kept.add(checkpoint)
    for _, checkpoint in steps if whole else ():
        if checkpoint not in kept:
            shutil.rmtree(checkpoint, ignore_errors=True)


def mark_whole(checkpoint: Path, recipe: Recipe) -> None:
    """Put a list of a checkpoint's files into it, the last to be written, by which it can be told whole.

    Which files there are depends on the engine: each process of a sharded job has some of its own.

    Args:
        checkpoint: its folder.
        recipe: what the result depends on, for a run that goes on from it.
    """
    files = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in _files(checkpoint)}
    content = {"files": files, "recipe": recipe.as_dict()}
    (checkpoint / _MARK).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def kept_recipe(checkpoint: Path) -> object:
    """Return the recipe in a whole checkpoint, as its JSON has it."""
    return (_read_object(checkpoint / _MARK) or {}).get("recipe")


def damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when it is whole."""
    for name in (_MARK, STATE):
        if _read_object(checkpoint / name) is None:
            return f"{name} is missing or broken"
    files = (_read_object(checkpoint / _MARK) or {}).get("files")
    if not isinstance(files, dict):
        return f"{_MARK} is missing or broken"
    for name, size in files.items():
        file = checkpoint / name
        if not file.is_file() or file.stat().st_size != size:
            return f"{name} is missing or broken"
    return next((f"{file.name} is broken" for file in checkpoint.glob("*.safetensors") if not _opens(file)), None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_object(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _opens(file: Path) -> bool:
    try:
        with safe_open(file, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def put_in_place(partial: Path, final: Path) -> None:
    """Give a checkpoint its name, once its bytes are on the disk."""
    for file in _files(partial):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    os.replace(partial, final)
