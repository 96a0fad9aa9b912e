"""A model whose vocabulary was extended is trained, exported and read by llama.cpp as transformers reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model

Cli = Callable[..., CliResult]


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    """Write a few words again and again, in an order that a seed gives."""
    words = ["语言", "模型", "把", "文字", "切成", "词元", "，", "中文", "的", "越", "少", "就", "快", "。"]
    rng = random.Random(0)
    file = tmp_path / "chinese.txt"
    file.write_text("\n".join("".join(rng.choices(words, k=20)) for _ in range(60)), encoding="utf-8")
    return file


def _make_sentencepiece(text: Path, folder: Path, lmflow_cli: Cli) -> Path:
    """Return a small model whose tokenizer is a SentencePiece model of English and code."""
    flags = ("--kind", "sentencepiece", "--algorithm", "bpe", "--size", 400)
    assert lmflow_cli("vocab", "train", "--files", text, *flags, "--output", folder / "tokenizer").status == 0
    make_tiny_model(folder)
    for file in (folder / "tokenizer").iterdir():
        file.rename(folder / file.name)
    (folder / "tokenizer").rmdir()
    return folder


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_llama_cpp_reads_an_extended_model_as_transformers_does(
    kind: str, chinese: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    pytest.importorskip("llama_cpp", reason="the exported file is run by llama.cpp")
    old = tmp_path / "old"
    if kind == "byte-level":
        make_tiny_model(old, tie_word_embeddings=False)
    else:
        _make_sentencepiece(Path(random.__file__), old, lmflow_cli)
    command = ("vocab", "extend", "--model", old, "--files", chinese, "--size", 50, "--output", tmp_path / "new")
    assert lmflow_cli(*command).status == 0
    pre = ("--pre-tokenizer", "gpt-2") if kind == "byte-level" else ()
    written = ("--format", "gguf", "--type", "F32", "--output", tmp_path / "new.gguf")
    result = lmflow_cli("export", "--model", tmp_path / "new", *written, *pre)
    assert result.status == 0, result.stderr
    flags = ("--dataset", chinese, "--max-length", 128, "--length-policy", "truncate", "--json")
    ours, theirs = (
        lmflow_cli("evaluate", "--model", model, *flags).json() for model in (tmp_path / "new", tmp_path / "new.gguf")
    )
    assert ours["tokens"] == theirs["tokens"]
    assert ours["nll_per_token"] == pytest.approx(theirs["nll_per_token"], abs=1e-4)
    before = lmflow_cli("evaluate", "--model", old, *flags).json()
    assert ours["tokens"] < 0.7 * before["tokens"]
