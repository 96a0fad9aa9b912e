"""Parquet and Arrow files are read by a process that may die of them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.errors import DataError
from lmflow_datasets import table_worker
from lmflow_datasets.sources import ArrowFile, ParquetFile

pyarrow = pytest.importorskip("pyarrow")

READERS = {".parquet": ParquetFile(), ".arrow": ArrowFile()}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The reading processes that a test starts, of which none waits when it begins."""
    found: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remembered(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(table_worker, "_idle", [])
    monkeypatch.setattr(table_worker.subprocess, "Popen", remembered)
    return found


def _write(file: Path, table: Any) -> Path:
    from pyarrow import parquet

    if file.suffix == ".parquet":
        parquet.write_table(table, file)
    else:
        with pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return file


def _long(tmp_path: Path, suffix: str) -> Path:
    return _write(tmp_path / f"rows{suffix}", pyarrow.table({"text": [f"{n} " * 500 for n in range(20_000)]}))


def _refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(READERS[file.suffix].rows(str(file)))
    assert str(caught.value).startswith(f"{file}: ")
    return caught.value.problem


@pytest.mark.parametrize("suffix", READERS)
def test_files_that_are_read_one_after_the_other_share_a_process(
    tmp_path: Path, suffix: str, started: list[subprocess.Popen[bytes]]
) -> None:
    file = _write(tmp_path / f"rows{suffix}", pyarrow.table({"text": ["a", None], "n": [1, 2]}))
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(file.read_bytes()[:-20])
    for _ in range(2):
        assert list(READERS[suffix].rows(str(file))) == [{"text": "a", "n": 1}, {"text": None, "n": 2}]
        assert _refusal(damaged).startswith(f"cannot be read as {suffix[1:].capitalize()}: ")
    assert len(started) == 1


@pytest.mark.parametrize("suffix", READERS)
def test_a_process_that_a_file_kills_is_told_and_replaced(
    tmp_path: Path, suffix: str, started: list[subprocess.Popen[bytes]]
) -> None:
    file = _long(tmp_path, suffix)
    rows = iter(READERS[suffix].rows(str(file)))
    next(rows)
    os.kill(started[0].pid, signal.SIGSEGV)
    with pytest.raises(DataError, match=r"damaged: .* was ended by SIGSEGV; write or download it again"):
        list(rows)
    assert sum(1 for _ in READERS[suffix].rows(str(file))) == 20_000
    assert len(started) == 2


def test_a_process_that_ended_while_it_waited_is_replaced(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    file = _write(tmp_path / "rows.parquet", pyarrow.table({"text": ["a"]}))
    assert len(list(ParquetFile().rows(str(file)))) == 1
    started[0].kill()
    started[0].wait()
    assert len(list(ParquetFile().rows(str(file)))) == 1


@pytest.mark.parametrize("suffix", READERS)
def test_a_reading_that_is_left_leaves_no_process(
    tmp_path: Path, suffix: str, started: list[subprocess.Popen[bytes]]
) -> None:
    rows = iter(READERS[suffix].rows(str(_long(tmp_path, suffix))))
    assert next(rows)["text"] == "0 " * 500
    rows.close()  # type: ignore[attr-defined]
    assert started[0].poll() is not None


def test_text_that_is_no_text_is_told(tmp_path: Path) -> None:
    binary = pyarrow.array([b"\xff\xfe"], pyarrow.binary())
    table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, binary.buffers())})
    assert "UTF8" in _refusal(_write(tmp_path / "rows.arrow", table))


def test_a_date_beyond_those_of_python_is_told(tmp_path: Path) -> None:
    table = pyarrow.table({"when": pyarrow.array([2**62], pyarrow.timestamp("s"))})
    assert _refusal(_write(tmp_path / "rows.arrow", table)).startswith("a value cannot be turned into one of Python: ")


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([["a"], ["b"]], names=["text", "text"])
    assert _refusal(_write(tmp_path / "rows.arrow", table)).endswith("two columns have the same name")


def test_rows_without_values_are_refused_however_many_they_say_they_are(tmp_path: Path) -> None:
    nothing = pyarrow.Array.from_buffers(pyarrow.null(), (1 << 31) - 1, [None])
    batch = pyarrow.RecordBatch.from_arrays([nothing], names=["text"])
    file = tmp_path / "rows.arrow"
    with pyarrow.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)
    assert _refusal(file).endswith("no column can hold a value")
