"""A model whose vocabulary was extended is trained, exported and read by llama.cpp as transformers reads it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

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
    _check_export(tmp_path / "new", chinese, lmflow_cli, "--pre-tokenizer", "gpt-2")


def test_llama_cpp_reads_an_extended_sentencepiece_model_as_transformers_does(
    chinese: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    pytest.importorskip("llama_cpp", reason="the exported file is run by llama.cpp")
    _check_export(_extended_sentencepiece("bpe", chinese, tmp_path, lmflow_cli), chinese, lmflow_cli)


def test_a_unigram_model_is_told_to_be_cut_otherwise(chinese: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    model = _extended_sentencepiece("unigram", chinese, tmp_path, lmflow_cli)
    told = lmflow_cli("export", "--model", model, "--format", "gguf", "--type", "F32", "--output", tmp_path / "a.gguf")
    assert told.status == 0
    assert "texts get other tokens there" in told.stderr


def _extended_sentencepiece(algorithm: str, chinese: Path, folder: Path, lmflow_cli: Cli) -> Path:
    text, old, new = folder / "english.txt", folder / "old", folder / "new"
    text.write_text("\n".join(f"the model {n} reads what {n * n} tokens say" for n in range(400)), encoding="utf-8")
    kind = ("--kind", "sentencepiece", "--algorithm", algorithm)
    assert lmflow_cli("vocab", "train", "--files", text, "--size", 320, *kind, "--output", old).status == 0
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    tokens = len(AutoTokenizer.from_pretrained(old))
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=tokens, bos_token_id=1, eos_token_id=2, initializer_range=0.2, **sizes)
    LlamaForCausalLM(config).save_pretrained(old)
    assert lmflow_cli("vocab", "extend", "--model", old, "--files", chinese, "--size", 50, "--output", new).status == 0
    return new


def _check_export(model: Path, text: Path, lmflow_cli: Cli, *flags: str) -> None:
    """Check that llama.cpp gives a text the likelihood, over as many tokens, that the model itself gives it."""
    file = model.with_suffix(".gguf")
    result = lmflow_cli("export", "--model", model, "--format", "gguf", "--type", "F32", *flags, "--output", file)
    assert result.status == 0, result.stderr
    measured = ("--dataset", text, "--max-length", 128, "--length-policy", "truncate", "--json")
    ours, theirs = (lmflow_cli("evaluate", "--model", each, *measured).json() for each in (model, file))
    assert ours["tokens"] == theirs["tokens"]
    assert ours["nll_per_token"] == pytest.approx(theirs["nll_per_token"], abs=1e-4)
