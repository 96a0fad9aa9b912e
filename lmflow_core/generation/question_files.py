"""Files of questions that a model is asked by who brings its own: what is said of them, and their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmflow_core.contracts.source import Row


def read_mapping(path: Path, otherwise: str) -> dict[str, object]:
    """Return what a YAML or JSON file maps names to, dashes in the names as underscores.

    Args:
        path: of the file.
        otherwise: what the error says of a file that holds something else.

    Raises:
        RequestError: the file cannot be read, or does not hold a mapping whose keys are names, each of them once.
    """
    # What reads files is imported when one is read: every command loads the public interface.
    from lmflow_core.config.run_file import read_mapping as read

    return read(path, otherwise)


def read_rows(file: Path) -> Iterator[Row]:
    """Yield the rows of a JSON, JSONL, CSV or TSV file, compressed or not.

    Raises:
        DataError: the file cannot be read or is broken, or a row is not an object.
    """
    from lmflow_core.data.rows import read_rows as read

    return read(file)
