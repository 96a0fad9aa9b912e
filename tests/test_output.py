"""Results are whole or absent, and a place that is taken is told before any work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lmflow_core.errors import OutputError
from lmflow_core.files.output import (
    atomic_file,
    atomic_folder,
    check_output,
    check_output_file,
    remove_if_empty,
    write_json,
)


def _tree(folder: Path) -> dict[str, str | None]:
    """Return every path under a folder with the text of the file, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None for path in folder.rglob("*")
    }


def _write_and_fail(folder: Path, error: BaseException) -> None:
    with atomic_folder(folder) as aside:
        (aside / "weights").write_text("new")
        (aside / "run.json").write_text("{}")
        raise error


def test_a_result_is_put_in_place_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as aside:
        assert list(aside.iterdir()) == []
        (aside / "weights").write_text("new")
        (aside / "part").mkdir()
        (aside / "part" / "inner").write_text("new")
        assert _tree(out) == {".partial": None, **{f".partial/{name}": text for name, text in _tree(aside).items()}}
    assert _tree(tmp_path) == {
        "deep": None,
        "deep/out": None,
        "deep/out/weights": "new",
        "deep/out/part": None,
        "deep/out/part/inner": "new",
    }


@pytest.mark.parametrize("error", [RuntimeError("stopped"), KeyboardInterrupt()])
def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights").write_text("old")
    (out / "run.json").write_text('{"files": ["weights", "run.json"]}')
    before = _tree(tmp_path)
    with pytest.raises(type(error)):
        _write_and_fail(out, error)
    assert _tree(tmp_path) == before


def test_an_error_takes_back_the_folders_that_were_made(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        _write_and_fail(tmp_path / "very" / "deep" / "out", RuntimeError("stopped"))
    assert _tree(tmp_path) == {}


def test_an_error_of_the_disk_is_told_by_its_cause(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError) as caught, atomic_folder(out) as aside:
        raise OSError(28, os.strerror(28), str(aside / "weights"))
    assert str(caught.value) == f"{out} cannot be written: No space left on device"
    assert _tree(tmp_path) == {}
    with pytest.raises(OutputError) as caught, atomic_folder(out):
        raise OSError("full")
    assert str(caught.value) == f"{out} cannot be written: full"


def test_what_an_earlier_try_left_aside_does_not_come_in(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "half").write_text("half")
    with atomic_folder(tmp_path) as aside:
        (aside / "weights").write_text("new")
    assert _tree(tmp_path) == {"weights": "new"}


def test_entries_of_the_same_name_are_replaced_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("old")
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "gone").write_text("old")
    with atomic_folder(tmp_path) as aside:
        (aside / "weights").write_text("new")
        (aside / "part").mkdir()
        (aside / "part" / "inner").write_text("new")
    assert _tree(tmp_path) == {
        "weights": "new",
        "notes": "mine",
        "checkpoints": None,
        "part": None,
        "part/inner": "new",
    }


def test_files_of_the_earlier_result_go_with_it(tmp_path: Path) -> None:
    files = {
        "adapter": "old",
        "shared": "old",
        "notes": "mine",
        "run.json": '{"files": ["adapter", "shared", "run.json"]}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with atomic_folder(tmp_path) as aside:
        (aside / "weights").write_text("new")
        (aside / "shared").write_text("new")
    assert _tree(tmp_path) == {"weights": "new", "shared": "new", "notes": "mine"}


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"files": "notes"}', '{"files": ["../outside", "kept", 5, null, "folder", "absent"]}']
)
def test_a_strange_record_of_the_earlier_result_removes_nothing_else(tmp_path: Path, record: str) -> None:
    (tmp_path / "outside").write_text("mine")
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "notes").write_text("mine")
    (out / "run.json").write_text(record)
    with atomic_folder(out) as aside:
        (aside / "weights").write_text("new")
    assert _tree(tmp_path) == {
        "outside": "mine",
        "out": None,
        "out/folder": None,
        "out/notes": "mine",
        "out/run.json": record,
        "out/weights": "new",
    }


def test_the_record_is_put_in_place_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with atomic_folder(tmp_path) as aside:
        for name in ("weights", "run.json", "a", "z"):
            (aside / name).write_text("")
    assert sorted(moved) == ["a", "run.json", "weights", "z"]
    assert moved[-1] == "run.json"


def _refusal(folder: Path, *, overwrite: bool = False, resume: bool = False) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(folder, overwrite=overwrite, resume=resume)
    return str(caught.value)


def test_places_that_are_free(tmp_path: Path) -> None:
    empty, taken = tmp_path / "empty", tmp_path / "taken"
    empty.mkdir()
    (taken / "checkpoints").mkdir(parents=True)
    check_output(empty)
    (empty / ".partial").mkdir()
    check_output(empty)
    check_output(tmp_path / "not" / "there")
    check_output(taken, overwrite=True)
    check_output(taken, resume=True)
    assert _tree(tmp_path) == {"empty": None, "empty/.partial": None, "taken": None, "taken/checkpoints": None}


def test_places_that_are_taken(tmp_path: Path) -> None:
    def refused_with(name: str) -> str:
        folder = tmp_path / name
        (folder / name).mkdir(parents=True)
        return _refusal(folder).removeprefix(str(folder))

    file = tmp_path / "file"
    file.write_text("")
    assert _refusal(file) == f"{file} is a file; --output must be a folder"
    assert _refusal(file / "deep" / "out") == f"{file} is a file; --output must be a folder"
    assert _refusal(file, overwrite=True) == f"{file} is a file; --output must be a folder"
    run = " already holds another run: choose another --output, or add --overwrite or --resume"
    assert refused_with("run.json") == run
    assert refused_with("checkpoints/checkpoint-2") == run
    assert refused_with("notes") == " already holds files: choose another --output, or add --overwrite"


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    message = f"{tmp_path} holds no checkpoint to resume from; leave out --resume to start anew"
    assert _refusal(tmp_path, resume=True) == message
    absent = tmp_path / "absent"
    assert _refusal(absent, resume=True) == message.replace(str(tmp_path), str(absent))


def test_places_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def denied(path: Path, mode: int) -> bool:
        asked.append((path, mode))
        return False

    monkeypatch.setattr(os, "access", denied)
    out = tmp_path / "not" / "there"
    assert _refusal(out) == f"{out} cannot be written: no permission in {tmp_path}"
    assert asked == [(tmp_path, os.W_OK)]


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "file").write_text("")
    for folder in (empty, full, tmp_path / "absent", full / "file"):
        remove_if_empty(folder)
    assert _tree(tmp_path) == {"full": None, "full/file": ""}


def test_a_json_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "é", "list": [1]})
    assert path.read_bytes() == '{\n  "name": "é",\n  "list": [\n    1\n  ]\n}\n'.encode()
    with pytest.raises(TypeError):
        write_json(path, {"name": object()})
    assert json.loads(path.read_text()) == {"name": "é", "list": [1]}
    assert list(tmp_path.iterdir()) == [path]
    write_json(tmp_path / "new" / "b.json", [])
    assert (tmp_path / "new" / "b.json").read_text() == "[]\n"
    below = path / "c.json"
    with pytest.raises(OutputError) as caught:
        write_json(below, [])
    assert str(caught.value) == f"{below} cannot be written: File exists"


def test_a_file_is_put_in_place_under_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "model.gguf"
    check_output_file(file)
    with atomic_file(file) as aside:
        (aside / "whatever.gguf").write_text("new")
        assert not file.exists()
    assert _tree(tmp_path) == {"deep": None, "deep/model.gguf": "new"}
    with pytest.raises(OutputError, match="exists already"):
        check_output_file(file)
    check_output_file(file, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_output_file(file / "below.gguf")


def test_a_companion_is_put_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with atomic_file(file, ("mmproj-",)) as aside:
        (aside / "whatever.gguf").write_text("text")
        (aside / "mmproj-whatever.gguf").write_text("eyes")
    assert _tree(tmp_path) == {"model.gguf": "text", "mmproj-model.gguf": "eyes"}
    for names in (("mmproj-a",), ("a", "mmproj-a", "mmproj-b")):
        with pytest.raises(OutputError, match="the result is several"):
            _write_file(file, names, None, ("mmproj-",))
    assert _tree(tmp_path) == {"model.gguf": "text", "mmproj-model.gguf": "eyes"}


def _write_file(
    file: Path, names: tuple[str, ...], error: BaseException | None, companions: tuple[str, ...] = ()
) -> None:
    with atomic_file(file, companions) as aside:
        for name in names:
            (aside / name).write_text("half")
        if error is not None:
            raise error


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "model.gguf"
    with pytest.raises(OutputError) as caught:
        _write_file(file, ("half",), OSError(28, os.strerror(28)))
    assert str(caught.value) == f"{file} cannot be written: No space left on device"
    with pytest.raises(OutputError) as caught:
        _write_file(file, ("a", "b"), None)
    assert str(caught.value) == f"{file} is one file, and the result is several (a, b): give --output a folder"
    assert _tree(tmp_path) == {}
