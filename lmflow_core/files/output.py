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
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest} is a file; --output must be a folder")
    if resume and not (folder / CHECKPOINTS).is_dir():
        raise OutputError(f"{folder} holds no checkpoint to resume from; leave out --resume to start anew")
    # What a killed run left aside is nobody's, and goes when the next one writes.
    taken = folder.is_dir() and any(entry.name != _PARTIAL for entry in folder.iterdir())
    if taken and not (overwrite or resume):
        what = "another run" if (folder / RUN_FILE).exists() or (folder / CHECKPOINTS).exists() else "files"
        mend = "choose another --output, or add --overwrite" + (" or --resume" if what == "another run" else "")
        raise OutputError(f"{folder} already holds {what}: {mend}")
    if not os.access(nearest, os.W_OK):
        raise OutputError(f"{folder} cannot be written: no permission in {nearest}")


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; on success its entries replace those of ``folder``, else it vanishes.

    Files of an earlier result, as its ``run.json`` names them, go with it: an adapter left beside new weights would be
    put on them.

    Raises:
        OutputError: the disk refuses a write.
    """
    created = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    aside = folder / _PARTIAL
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        for name in _result_files(folder) - {entry.name for entry in aside.iterdir()}:
            (folder / name).unlink(missing_ok=True)
        for entry in sorted(aside.iterdir(), key=lambda path: path.name == RUN_FILE):
            _replace(entry, folder / entry.name)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for path in created:
            remove_if_empty(path)


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
def file_written_aside(file: Path) -> Iterator[Path]:
    """Give an empty folder to write into; on success the one file in it is put in place, else it vanishes.

    Raises:
        OutputError: the disk refuses a write, or not exactly one file was written.
    """
    created = [path for path in file.absolute().parents if not path.exists()]
    aside = file.with_name(file.name + _PARTIAL)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        written = list(aside.iterdir())
        if len(written) != 1:
            names = ", ".join(sorted(path.name for path in written))
            raise OutputError(f"{file} is one file, and the result is several ({names}): give --output a folder")
        os.replace(written[0], file)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        for path in created:
            remove_if_empty(path)


def _result_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder that its ``run.json`` counts among the result."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    named = record.get("files") if isinstance(record, dict) else None
    present = {path.name for path in folder.iterdir() if path.is_file()}
    return present & {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; leave any other alone."""
    with suppress(OSError):
        folder.rmdir()


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file aside and put it in place; its folder is made where there is none.

    Raises:
        OutputError: the disk refuses a write.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file aside and put it in place; its folder is made where there is none.

    Raises:
        OutputError: the disk refuses a write.
    """
    aside = path.with_name(path.name + _PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
