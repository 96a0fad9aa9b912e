"""The contract of sources: rows as they were written, as a stream, and damage that is told by its file."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import random
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.source import SourceSpec
from lmflow_core.errors import DataError
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.samples import WRITERS, Rows

_MANY, _LONG = 20_000, 1000
_DAMAGES = 20


class SourceContract(ComponentContract):
    """What a place that rows are read from must do.

    Attributes:
        rows: what :meth:`write` can write, of one form: at least three rows, no two alike.
        missing: a reference that names nothing, where it reads no files.
    """

    kind: ClassVar[str] = "source"
    missing: ClassVar[str] = "nobody/no-such-data-set"
    rows: ClassVar[Rows] = (
        {"text": "one", "n": 1, "share": 0.5, "good": True, "tags": ["a", "b"], "inner": {"x": "y"}},
        {
            "text": 'zwölf "漢字" 😀\n\t\\',
            "n": -(2**40),
            "share": 1e-9,
            "good": False,
            "tags": ["c"],
            "inner": {"x": ""},
        },
        {"text": "", "n": 0, "share": -2.25, "good": None, "tags": [], "inner": {"x": "z"}},
    )

    @classmethod
    def made(cls, target: Any, option_values: Any) -> Any:
        """Return a source, as the core makes it."""
        return target()

    def write(self, rows: Rows, folder: Path) -> str:
        """Write rows where the source reads them, and return the reference; those of a folder again are replaced.

        Files of some suffixes are written already; a plugin's test writes others.
        """
        raise NotImplementedError

    @pytest.fixture
    def suffix(self, spec: SourceSpec) -> str:
        """Return the suffix of its files."""
        if not spec.suffixes:
            pytest.skip("it reads no files")
        return spec.suffixes[0]

    @pytest.fixture
    def writing(self, spec: SourceSpec) -> Any:
        """Return what writes rows into a folder and gives the reference."""
        if type(self).write is not SourceContract.write:
            return self.write
        known = [suffix for suffix in spec.suffixes if suffix in WRITERS]
        if not known:
            pytest.skip("no sample: give write(rows, folder)")

        def write(rows: Rows, folder: Path) -> str:
            file = folder / f"sample{known[0]}"
            WRITERS[known[0]](rows, file)
            return file.as_posix()

        return write

    @pytest.fixture
    def sample(self, writing: Any, tmp_path: Path) -> str:
        """Return a reference to the sample rows."""
        return str(writing(self.rows, tmp_path))

    def test_suffixes_can_be_met(self, spec: SourceSpec) -> None:
        """Its suffixes are written as file names have them, in lower case; it reads files or a hub."""
        wrong = [suffix for suffix in spec.suffixes if not suffix.startswith(".") or suffix != suffix.lower()]
        assert not wrong, f"no suffixes: {', '.join(wrong)}"
        double = [suffix for suffix in spec.suffixes if suffix.count(".") > 1]
        assert not double, f"the core looks at the last suffix of a name alone: {', '.join(double)}"
        assert spec.suffixes or spec.hub, "nothing is read by it: suffixes are empty, and hub is false"

    def test_what_is_not_there_is_told(self, component: Any, spec: SourceSpec, tmp_path: Path) -> None:
        """A reference that names nothing is a DataError that tells it, for the rows and for the digest."""
        reference = (tmp_path / f"missing{spec.suffixes[0]}").as_posix() if spec.suffixes else self.missing
        assert _rows(component, reference) is None, f"{reference} is not there, and has rows"
        assert _digest(component, reference) is None, f"{reference} is not there, and has a fingerprint"

    def test_a_folder_is_no_file(self, component: Any, suffix: str, tmp_path: Path) -> None:
        """A folder in the place of a file is a DataError that tells it."""
        folder = tmp_path / f"folder{suffix}"
        folder.mkdir()
        assert _rows(component, folder.as_posix()) is None, "a folder has rows"

    def test_an_empty_file_has_no_rows(self, component: Any, suffix: str, tmp_path: Path) -> None:
        """An empty file is a DataError that tells it, or has no rows."""
        file = tmp_path / f"empty{suffix}"
        file.touch()
        assert not _rows(component, file.as_posix()), "an empty file has rows"

    def test_random_bytes_are_refused(self, component: Any, suffix: str, tmp_path: Path) -> None:
        """A file of random bytes is a DataError that tells it."""
        for seed, size in enumerate((1, 16, 1000, 100_000)):
            file = tmp_path / f"random{seed}{suffix}"
            file.write_bytes(b"\xff" + random.Random(seed).randbytes(size))
            found = _rows(component, file.as_posix())
            assert found is None, f"{size + 1} random bytes have {len(found or ())} rows"

    def test_rows_are_as_they_were_written(self, component: Any, sample: str) -> None:
        """Rows come in their order, as JSON values by field, nothing lost and nothing changed."""
        found = [*component.rows(sample)]
        for row in found:
            assert isinstance(row, Mapping), f"a row is a {type(row).__name__}, no mapping"
            problem = next((f"{name}: {what}" for name, value in row.items() if (what := _not_json(value))), None)
            assert problem is None, f"{row} holds what is no JSON value: {problem}"
        assert _without_none(found) == _without_none(self.rows), f"{_without_none(found)}, of {self.rows}"

    def test_rows_can_be_read_again(self, component: Any, sample: str) -> None:
        """Rows can be read again, two readings go on side by side, and one may be left in the middle."""
        wanted = [dict(row) for row in component.rows(sample)]
        next(iter(component.rows(sample)))
        assert [dict(row) for row in component.rows(sample)] == wanted, "read again, the rows are others"
        pairs = zip(component.rows(sample), component.rows(sample), strict=True)
        assert [(dict(a), dict(b)) for a, b in pairs] == [(row, row) for row in wanted], "readings disturb each other"

    def test_rows_are_a_stream(self, component: Any, writing: Any, tmp_path: Path) -> None:
        """The first row comes before the last is read: it takes less than half of the memory of all."""
        base = {name: value for name, value in self.rows[0].items() if not isinstance(value, str)}
        texts = [name for name, value in self.rows[0].items() if isinstance(value, str)] or ["text"]
        rows = [{**base, texts[0]: f"{number} ".ljust(_LONG, "x")} for number in range(_MANY)]
        reference = writing(rows, tmp_path)
        assert isinstance(component.rows(reference), Iterator), "rows() gives no iterator"
        first, whole = (_peak(component, reference, count) for count in (1, _MANY))
        assert first < whole / 2, f"the first row takes {first >> 20} MB, and all of {_MANY} take {whole >> 20} MB"

    def test_a_damaged_file_is_told(self, component: Any, sample: str, tmp_path: Path) -> None:
        """A file that is cut or has wrong bytes is a DataError that tells it, or gives rows; nothing else happens."""
        if not Path(sample).is_file():
            pytest.skip("the sample is no file that could be damaged")
        whole, source = Path(sample).read_bytes(), random.Random(1)
        wanted = _without_none(component.rows(sample))
        for number in range(_DAMAGES):
            file = tmp_path / f"damaged{number}{Path(sample).suffix}"
            at = source.randrange(1, len(whole))
            cut = number % 2 == 0
            file.write_bytes(whole[:at] if cut else whole[:at] + source.randbytes(4) + whole[at + 4 :])
            found = _rows(component, file.as_posix())
            if cut and found is not None:
                kept = _without_none(found)
                assert kept == wanted[: len(kept)], f"cut behind {at} bytes, it has the rows {kept}"

    def test_a_digest_changes_with_a_row(self, component: Any, writing: Any, tmp_path: Path) -> None:
        """The digest is the same for the same rows and another when one of them changes, whatever the date says."""
        reference = writing(self.rows, tmp_path)
        digest = component.fingerprint(reference)
        assert isinstance(digest, str), f"the digest is {digest!r}, no text"
        assert digest, "the digest is empty"
        assert component.fingerprint(reference) == digest, "asked again, the digest is another"
        assert type(component)().fingerprint(reference) == digest, "another source of its kind gives another digest"
        date = os.stat(reference) if Path(reference).exists() else None
        changed = [copy.deepcopy(dict(row)) for row in self.rows]
        changed[0], changed[1] = changed[1], changed[0]
        assert writing(changed, tmp_path) == reference, "write gives another reference for the same folder"
        if date is not None:
            os.utime(reference, ns=(date.st_atime_ns, date.st_mtime_ns))
        assert component.fingerprint(reference) != digest, "other rows have the same digest"


def _rows(source: Any, reference: str) -> list[Mapping[str, Any]] | None:
    """Return the rows of a reference; None where it is refused as it must be."""
    try:
        return [*source.rows(reference)]
    except Exception as error:
        _check_refusal(error, reference, "rows")
    return None


def _digest(source: Any, reference: str) -> object:
    try:
        return source.fingerprint(reference)
    except Exception as error:
        _check_refusal(error, reference, "fingerprint")
    return None


def _check_refusal(error: Exception, reference: str, method: str) -> None:
    told = f"{method}() raises {type(error).__name__}: {error}"
    assert isinstance(error, DataError), f"{told}; a DataError is told to the user"
    assert reference in str(error), f"{told}; it does not name {reference}"


def _peak(source: Any, reference: str, count: int) -> int:
    """Return the most memory that Python took while so many rows were read and kept."""
    tracemalloc.start()
    try:
        rows = source.rows(reference)
        kept = [*itertools.islice(rows, count)]
        assert len(kept) == count, f"of {_MANY} rows it gives {len(kept)}"
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _without_none(rows: Any) -> list[dict[str, Any]]:
    """Return rows without the fields that hold nothing, which the core leaves out."""
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _not_json(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return None if json.loads(json.dumps(value)) == value else f"a {type(value).__name__}"
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"
