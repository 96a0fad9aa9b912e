"""Folders are told by their bytes, and a disk is full where a test says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_core.testing.disks import changes, digests_of, full_behind, sizes_of


def test_files_that_came_went_and_changed_are_told(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name, content in (("below/stays", b"1"), ("goes", b"12"), ("changes", b"123")):
        (tmp_path / name).write_bytes(content)
    assert sizes_of(tmp_path) == {"below/stays": 1, "changes": 3, "goes": 2}
    before = digests_of(tmp_path)
    assert changes(before, digests_of(tmp_path)) == []
    (tmp_path / "goes").unlink()
    (tmp_path / "changes").write_bytes(b"321")
    (tmp_path / "comes").touch()
    assert changes(before, digests_of(tmp_path)) == ["changes", "comes", "goes"]


def test_a_disk_is_full_for_as_long_as_it_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    with full_behind(100):
        (tmp_path / "short").write_bytes(b"0" * 100)
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "long").write_bytes(b"0" * 101)
    (tmp_path / "long").write_bytes(b"0" * 101)
    assert (tmp_path / "long").stat().st_size == 101
