"""Rows from Parquet and Arrow files and from a hub. The libraries that read them are imported when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmflow_core.api import DataError
from lmflow_datasets.table_worker import read_table

_CHUNK = 1 << 20


class ParquetFile:
    """A Parquet file, read batch by batch."""

    def rows(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file.

        Raises:
            DataError: it is no Parquet file.
        """
        return read_table("parquet", reference)

    def fingerprint(self, reference: str) -> str:
        """Return a digest of the file's bytes."""
        return _digest(reference)


class ArrowFile:
    """An Arrow file or stream, as ``datasets`` saves them."""

    def rows(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a file.

        Raises:
            DataError: it is no Arrow file.
        """
        return read_table("arrow", reference)

    def fingerprint(self, reference: str) -> str:
        """Return a digest of the file's bytes."""
        return _digest(reference)


class HubDataset:
    """A data set of the Hugging Face hub: ``owner/name``, or ``owner/name:split`` (else its split ``train``)."""

    def rows(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Yield the rows of a data set, downloading them once.

        Raises:
            DataError: there is no such data set, or no way to it.
        """
        yield from _loaded(reference)

    def fingerprint(self, reference: str) -> str:
        """Return the fingerprint that ``datasets`` gives the loaded data."""
        return str(_loaded(reference)._fingerprint)


def _loaded(reference: str) -> Any:
    import datasets

    name, _, split = reference.partition(":")
    try:
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # datasets raises many kinds; all mean that the reference cannot be read
        raise DataError(f"cannot be loaded from the hub: {_reason(error)}", file=reference) from error


def _digest(file: str) -> str:
    digest = hashlib.sha256()
    try:
        with Path(file).open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"cannot be read: {_reason(error)}", file=file) from error
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
