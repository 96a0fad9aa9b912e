"""Files and folders that are whole or absent: they are written under another name, then put in place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lmflow_core.errors import OutputError

PARTIAL = ".partial"


@contextmanager
def scratch_folder(folder: Path, refused: Callable[[OSError], OutputError]) -> Iterator[Path]:
    """Give a new, empty folder that vanishes in the end, and with it the folders made for it that stay empty.

    What a killed run left there is nobody's and is removed.

    Args:
        folder: the folder.
        refused: makes the error of one of the disk's, also of those in the body of the ``with``.

    Raises:
        OutputError: the disk refuses.
    """
    created = [path for path in folder.absolute().parents if not path.exists()]
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise refused(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in created:
            remove_if_empty(path)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; leave any other alone."""
    with suppress(OSError):
        folder.rmdir()


def put_in_place(source: Path, target: Path) -> None:
    """Rename a file or folder; it takes the place of what is there.

    Raises:
        OSError: the disk refuses.
    """
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or absent; its folder is made where there is none.

    Raises:
        OutputError: the disk refuses a write.
    """
    with atomic_text(path) as stream:
        stream.write(text)


@contextmanager
def atomic_text(path: Path) -> Iterator[TextIO]:
    """Give a text file to write, which takes its place when the context ends well, and vanishes else.

    Raises:
        OutputError: the disk refuses a write.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as stream:
            yield stream
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
