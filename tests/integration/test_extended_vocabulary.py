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


def test_llama_cpp_reads_an_extended_model_as_transformers_does(chinese: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    pytest.importorskip("llama_cpp", reason="the exported file is run by llama.cpp")
    old = make_tiny_model(tmp_path / "old", tie_word_embeddings=False)
    command = ("vocab", "extend", "--model", old, "--files", chinese, "--size", 50, "--output", tmp_path / "new")
    assert lmflow_cli(*command).status == 0
    written = ("--format", "gguf", "--type", "F32", "--pre-tokenizer", "gpt-2", "--output", tmp_path / "new.gguf")
    result = lmflow_cli("export", "--model", tmp_path / "new", *written)
    assert result.status == 0, result.stderr
    flags = ("--dataset", chinese, "--max-length", 128, "--length-policy", "truncate", "--json")
    ours, theirs = (
        lmflow_cli("evaluate", "--model", model, *flags).json() for model in (tmp_path / "new", tmp_path / "new.gguf")
    )
    assert ours["tokens"] == theirs["tokens"]
    assert ours["nll_per_token"] == pytest.approx(theirs["nll_per_token"], abs=1e-4)
