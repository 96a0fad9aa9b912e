"""One run at a time for each output, and files that grow by whole lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmflow_core.errors import OutputError
from lmflow_core.files import exclusive as module
from lmflow_core.files.exclusive import exclusive, lock_of_file
from lmflow_core.files.lines import lines_behind
from lmflow_core.files.output import check_output

# Holds a folder until it is told to end.
_HOLDER = """
import sys
from pathlib import Path
from lmflow_core.files.exclusive import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with _holder(folder) as process:
        with pytest.raises(OutputError, match=f"another run is writing to {folder}: wait for it"), exclusive(folder):
            pass
        assert folder.is_dir()
        process.communicate("")
    assert not folder.exists()
    with exclusive(folder):
        assert folder.is_dir()


def test_a_killed_run_lets_the_next_one_in(tmp_path: Path) -> None:
    with _holder(tmp_path / "out") as process:
        process.kill()
        process.wait()
    with exclusive(tmp_path / "out"):
        pass


def test_the_message_names_the_file_that_is_held(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with _holder(lock_of_file(file)) as process:
        with pytest.raises(OutputError, match=f"another run is writing to {file}: "), exclusive(lock_of_file(file)):
            pass
        process.kill()
        process.wait()
    assert lock_of_file(file).is_dir()
    with exclusive(lock_of_file(file)):
        pass


def test_what_was_made_for_it_and_stays_empty_vanishes(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b" / "c").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with exclusive(tmp_path / "mine"), exclusive(tmp_path / "x" / "out"):
        (tmp_path / "x" / "out" / "weights").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "x"]


def test_a_folder_that_the_run_before_took_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, is_still = tmp_path / "out", module._is_still
    seen: list[bool] = []

    def taken_away(descriptor: int, path: Path) -> bool:
        if not seen:
            path.rmdir()
        seen.append(is_still(descriptor, path))
        return seen[-1]

    monkeypatch.setattr(module, "_is_still", taken_away)
    with exclusive(folder):
        assert folder.is_dir()
    assert seen == [False, True]


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"file/out cannot be written: Not a directory"),
        exclusive(tmp_path / "file/out"),
    ):
        pass


def test_what_a_killed_run_left_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".partial" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / ".partial").mkdir()
    check_output(tmp_path)
    (tmp_path / "checkpoints" / "checkpoint-3").mkdir()
    with pytest.raises(OutputError, match="already holds another run"):
        check_output(tmp_path)


def test_lines_are_added_whole_and_what_else_was_there_goes_with_the_first(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "lines"
    with lines_behind(file, 0):
        pass
    assert not file.parent.exists()
    with lines_behind(file, 0) as add:
        add(b"one\n")
        add(b"two\n")
    file.write_bytes(file.read_bytes() + b"a torn li")
    with pytest.raises(KeyError), lines_behind(file, 8):
        raise KeyError
    assert file.read_bytes() == b"one\ntwo\na torn li"
    with lines_behind(file, 4) as add:
        add(b"three\n")
    assert file.read_bytes() == b"one\nthree\n"


def test_a_line_that_the_disk_refuses_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, refused = os.write, OSError(28, "No space left on device")

    def full(descriptor: int, data: bytes) -> int:
        if os.fstat(descriptor).st_size >= 10:
            raise refused
        return written(descriptor, bytes(data)[:3])

    def add_all(file: Path, *given: bytes) -> None:
        with lines_behind(file, 0) as add:
            for line in given:
                add(line)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="lines cannot be written: No space left"):
        add_all(tmp_path / "lines", b"first\n", b"second line\n")
    assert (tmp_path / "lines").read_bytes() == b"first\n"
    with pytest.raises(OutputError):
        add_all(tmp_path / "other", b"a line that is too long\n")
    assert not (tmp_path / "other").exists()
