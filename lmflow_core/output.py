"""Output folders that are whole or absent: everything is written aside, then put in place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmflow_core.errors import OutputError

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
_PARTIAL = ".partial"


def check_output(folder: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check, before any work, that a result can be put into a folder. Creates nothing.

    Raises:
        OutputError: the folder holds something already, is a file, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; --output must be a folder")
    if resume and not (folder / CHECKPOINTS).is_dir():
        raise OutputError(f"{folder} holds no checkpoint to resume from; leave out --resume to start anew")
    if folder.is_dir() and any(folder.iterdir()) and not (overwrite or resume):
        what = "another run" if (folder / RUN_FILE).exists() or (folder / CHECKPOINTS).exists() else "files"
        mend = "choose another --output, or add --overwrite" + (" or --resume" if what == "another run" else "")
        raise OutputError(f"{folder} already holds {what}: {mend}")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise OutputError(f"{folder} cannot be written: no permission in {parent}")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; on success its entries replace those of ``folder``, else it vanishes.

    Raises:
        OutputError: the disk refuses a write.
    """
    existed = folder.exists()
    aside = folder / _PARTIAL
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for entry in sorted(aside.iterdir(), key=lambda path: path.name == RUN_FILE):
            _replace(entry, folder / entry.name)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if not existed:
            remove_if_empty(folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; leave any other alone."""
    with suppress(OSError):
        folder.rmdir()


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file aside and put it in place."""
    aside = path.with_name(path.name + _PARTIAL)
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, path)
