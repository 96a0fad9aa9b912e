"""Sources of JSON lines, the first of which is sound; each of the others has the fault its docstring names."""

import hashlib
import json
import os
from pathlib import Path

from lmflow_core.api import DataError


class Sound:
    """Reads a line at a time."""

    def rows(self, reference):
        try:
            with open(reference, encoding="utf-8") as stream:
                for line in stream:
                    yield self.row(json.loads(line))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"cannot be read: {error}", file=reference) from error

    def row(self, row):
        return {**row}

    def fingerprint(self, reference):
        try:
            return hashlib.sha256(Path(reference).read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"cannot be read: {error}", file=reference) from error


class LoadsAll(Sound):
    """Reads all rows before it gives the first."""

    def rows(self, reference):
        yield from list(super().rows(reference))


class GivesList(Sound):
    """Gives a list."""

    def rows(self, reference):
        return list(super().rows(reference))


class LetsErrorsThrough(Sound):
    """Lets errors of the library through."""

    def rows(self, reference):
        with open(reference, encoding="utf-8") as stream:
            yield from map(json.loads, stream)


class ForgetsFile(Sound):
    """Does not say which file is wrong."""

    def rows(self, reference):
        try:
            yield from super().rows(reference)
        except DataError:
            raise DataError("the file cannot be read") from None


class SkipsDamage(Sound):
    """Leaves out what it cannot read."""

    def rows(self, reference):
        for line in Path(reference).read_text(encoding="utf-8", errors="ignore").splitlines():
            try:
                yield {"text": json.loads(line)["text"]}
            except (ValueError, KeyError, TypeError):
                yield {"text": line}


class WritesTexts(Sound):
    """Makes texts of all values."""

    def row(self, row):
        return {name: str(value) for name, value in row.items()}


class GivesBytes(Sound):
    """Gives values that are none of JSON."""

    def row(self, row):
        return {name: value.encode() if isinstance(value, str) else value for name, value in row.items()}


class OnlyOnce(Sound):
    """Goes on where it was left, instead of beginning anew."""

    _open = None

    def rows(self, reference):
        self._open = self._open or super().rows(reference)
        yield from self._open


class DigestOfDate(Sound):
    """Takes the date and the size of a file for its content."""

    def fingerprint(self, reference):
        super().fingerprint(reference)
        found = os.stat(reference)
        return f"{found.st_mtime_ns} {found.st_size}"


class FleetingDigest(Sound):
    """Gives a digest that depends on the object."""

    def fingerprint(self, reference):
        return f"{id(self)} {super().fingerprint(reference)}"


class NoDigest(Sound):
    """Gives a digest of a file that is not there."""

    def fingerprint(self, reference):
        return hashlib.sha256(reference.encode()).hexdigest()
