"""Data files: which they are, and how they are opened. All text is UTF-8, with or without a byte order mark."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from lmflow_core.contracts.source import CORE_SUFFIXES
from lmflow_core.errors import DataError

_COMPRESSIONS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w./-]+)?")
_BROKEN = (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
_CHUNK = 1 << 18


def suffix(file: Path) -> str:
    """Return the suffix that tells a file's form, the one of a compression left out: ``.jsonl`` of ``a.jsonl.gz``."""
    names = [name.lower() for name in file.suffixes]
    if names and names[-1] in _COMPRESSIONS:
        names.pop()
    return names[-1] if names else ""


def is_hub_name(path: Path) -> bool:
    """Whether a path that does not exist may name a data set on a hub: ``owner/name`` or ``owner/name:split``."""
    return not path.exists() and suffix(path) not in CORE_SUFFIXES and bool(_HUB_NAME.fullmatch(path.as_posix()))


def data_files(paths: Iterable[Path], suffixes: Iterable[str] = CORE_SUFFIXES) -> list[Path]:
    """Return the data files under some paths, in order of their names.

    In a folder with rows, plain text is taken for notes about them; alone it is the data.

    Raises:
        DataError: a path does not exist, is no data file, or is a folder without one.
    """
    known = tuple(suffixes)
    return [file for path in paths for file in _files_of(path, known)]


def _files_of(path: Path, known: tuple[str, ...]) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(file.relative_to(path), known))
        found = [file for file in files if suffix(file) != ".txt"] or files
        if not found:
            raise DataError(f"the folder holds no data file ({', '.join(known)})", file=path)
        return found
    if not path.exists():
        raise DataError("no such file or folder", file=path)
    if suffix(path) not in known:
        packed = ", ".join(_COMPRESSIONS)
        raise DataError(f"not a data file; its name must end in {', '.join(known)}, perhaps with {packed}", file=path)
    return [path]


def _is_data(file: Path, known: tuple[str, ...]) -> bool:
    return suffix(file) in known and not any(part.startswith(".") for part in file.parts)


@contextmanager
def opened_text(file: Path) -> Iterator[IO[str]]:
    """Open a file for reading as text, uncompressed.

    Raises:
        DataError: the file is not UTF-8, its compression is broken, or it cannot be read.
    """
    try:
        with _opened_bytes(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({_bad_byte(file) or error.reason}); convert it to UTF-8", file=file) from error
    except _BROKEN as error:
        raise DataError(f"the compressed file is broken: {error}", file=file) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=file) from error


def _opened_bytes(file: Path) -> IO[bytes]:
    opener = _COMPRESSIONS.get(file.suffix.lower())
    return cast(IO[bytes], opener(file, "rb") if opener else file.open("rb"))


def _bad_byte(file: Path) -> str | None:
    """Tell where a file stops being UTF-8, or None where it cannot be read that far.

    The error of a stream only knows the place in its own buffer.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    with suppress(*_BROKEN, OSError), _opened_bytes(file) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            pending, _ = decoder.getstate()
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += (pending + chunk)[: error.start].count(b"\n")
                return f"{error.reason} at byte {offset - len(pending) + error.start}, line {line}"
            offset += len(chunk)
            line += chunk.count(b"\n")
    return None
