"""Where results go: what is checked before any work, and how they are put in place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lmflow_core.errors import OutputError
from lmflow_core.files.atomic import PARTIAL, put_in_place, remove_if_empty, scratch_folder, write_text

__all__ = [
    "CHECKPOINTS",
    "RUN_FILE",
    "atomic_file",
    "atomic_folder",
    "check_output",
    "check_output_file",
    "name_beside",
    "remove_if_empty",
    "write_json",
    "write_text",
]

RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"


def check_output(folder: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check, before any work, that a result can be put into a folder. Creates nothing.

    Raises:
        OutputError: the folder holds something already, is a file, or cannot be written.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is a file; --output must be a folder")
    if resume and not (folder / CHECKPOINTS).is_dir():
        raise OutputError(f"{folder} holds no checkpoint to resume from; leave out --resume to start anew")
    # What a killed run left behind is nobody's, and goes when the next one writes.
    taken = folder.is_dir() and any(_is_kept(entry) for entry in folder.iterdir())
    if taken and not (overwrite or resume):
        what = "another run" if (folder / RUN_FILE).exists() or (folder / CHECKPOINTS).exists() else "files"
        mend = "choose another --output, or add --overwrite" + (" or --resume" if what == "another run" else "")
        raise OutputError(f"{folder} already holds {what}: {mend}")
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{folder} cannot be written: no permission in {nearest}")


def _is_kept(entry: Path) -> bool:
    """Whether an entry of an output is more than what a killed run left, its first checkpoint not yet whole."""
    if entry.name == CHECKPOINTS and entry.is_dir():
        return any(_is_kept(checkpoint) for checkpoint in entry.iterdir())
    return entry.name != PARTIAL


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; on success its entries replace those of ``folder``, else it vanishes.

    Files of an earlier result, as its ``run.json`` names them, go with it: an adapter left beside new weights would be
    put on them.

    Raises:
        OutputError: the disk refuses a write.
    """
    with scratch_folder(folder / PARTIAL, partial(_refused, folder)) as scratch:
        yield scratch
        for name in _result_files(folder) - {entry.name for entry in scratch.iterdir()}:
            (folder / name).unlink(missing_ok=True)
        # The record comes last: with it the result counts as whole.
        for entry in sorted(scratch.iterdir(), key=lambda path: path.name == RUN_FILE):
            put_in_place(entry, folder / entry.name)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")


def check_output_file(file: Path, *, overwrite: bool = False) -> None:
    """Check, before any work, that a result can be put into a file. Creates nothing.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    if file.exists() and not overwrite:
        raise OutputError(f"{file} exists already: choose another --output, or add --overwrite")
    nearest = next(path for path in file.absolute().parents if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is a file; {file} cannot be put below it")
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{file} cannot be written: no permission in {nearest}")


@contextmanager
def atomic_file(file: Path, companions: Sequence[str] = ()) -> Iterator[Path]:
    """Give an empty folder to write into; on success the one file in it is put in place, else it vanishes.

    Args:
        file: where it is put.
        companions: beginnings of the names of files that may be beside the one, one of each: ``mmproj-…`` is put in
            place as ``mmproj-`` with the name of ``file`` behind it.

    Raises:
        OutputError: the disk refuses a write, or more was written, or nothing.
    """
    with scratch_folder(file.with_name(file.name + PARTIAL), partial(_refused, file)) as scratch:
        yield scratch
        names = sorted(path.name for path in scratch.iterdir())
        places = {name: file.with_name(name_beside(file, name, companions)) for name in names}
        if file not in places.values() or len({*places.values()}) < len(names):
            raise OutputError(
                f"{file} is one file, and the result is several ({', '.join(names)}): give --output a folder"
            )
        # The file itself comes last: with it the result counts as whole.
        for name in sorted(names, key=lambda name: places[name] == file):
            os.replace(scratch / name, places[name])


def name_beside(file: Path, name: str, companions: Sequence[str]) -> str:
    """Return what a written file is called once it is at ``file`` or, as one of its companions, beside it."""
    return next((begin for begin in companions if name.startswith(begin)), "") + file.name


def _result_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder that its ``run.json`` counts among the result."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    named = record.get("files") if isinstance(record, dict) else None
    present = {path.name for path in folder.iterdir() if path.is_file()}
    return present & {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is whole or absent; its folder is made where there is none.

    Raises:
        OutputError: the disk refuses a write.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
