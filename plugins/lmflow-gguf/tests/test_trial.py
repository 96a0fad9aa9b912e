"""The first use of a file is tried where it can do no harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmflow_core.api import ModelError, ModelSettings
from lmflow_gguf import trial
from lmflow_gguf.header import read_header
from lmflow_gguf.model import LlamaCppLoader

pytest.importorskip("llama_cpp")


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count the trials of a test, which has a cache of its own."""
    seen: list[int] = []
    real = trial._status

    def status(files: list[str]) -> int:
        seen.append(real(files))
        return seen[-1]

    monkeypatch.setenv("LMFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "_status", status)
    return lambda: len(seen)


def test_a_file_is_tried_once(exported: Callable[[str], Path], tmp_path: Path, counted: Callable[[], int]) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(exported("llama").read_bytes())
    for _ in range(2):
        LlamaCppLoader().open(str(file), ModelSettings(model=str(file)))
    assert counted() == 1
    file.write_bytes(file.read_bytes() + b"\0")
    trial.try_file(file)
    assert counted() == 2


def test_a_file_that_ends_llama_cpp_is_told(
    exported: Callable[[str], Path], counted: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = exported("llama")
    monkeypatch.setattr(trial, "_PROGRAM", "import os; os.abort()")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"\.gguf is damaged: llama.cpp ends with SIGABRT when it reads it"):
            trial.try_file(file)
    assert counted() == 2


def test_a_file_that_llama_cpp_refuses_is_told_by_who_loads_it(
    exported: Callable[[str], Path], tmp_path: Path, counted: Callable[[], int]
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(exported("llama").read_bytes().replace(b"token_embd.weight", b"token_embx.weight"))
    for _ in range(2):
        trial.try_file(file)
    assert counted() == 2


@pytest.mark.parametrize("alignment", [0, -1])
def test_an_alignment_that_is_none_is_told(tmp_path: Path, alignment: int) -> None:
    import gguf

    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_int32("general.alignment", alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=f"general.alignment is {alignment}, and must be a whole number above 0"):
        read_header(file)
