"""Vocabularies trained anew, and what is counted of a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from lmflow_core.testing.fixtures import CliResult
from lmflow_vocabulary.command import spread

Cli = Callable[..., CliResult]
Language = Callable[..., Path]
_KINDS = [("--kind", "bpe"), ("--kind", "sentencepiece"), ("--kind", "sentencepiece", "--algorithm", "bpe")]


@pytest.mark.parametrize("kind", _KINDS, ids=["bpe", "unigram", "sentencepiece-bpe"])
def test_a_trained_vocabulary_is_one_of_transformers(
    kind: tuple[str, ...], language: Language, twenty_scripts: list[str], tmp_path: Path, lmflow_cli: Cli
) -> None:
    file, output = language("Devanagari"), tmp_path / "output"
    command = ("vocab", "train", "--files", file, "--size", 400, *kind, "--output", output, "--json")
    result = lmflow_cli(*command)
    assert result.status == 0, result.stderr
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert result.json() == {"output": str(output), "tokens": len(tokenizer), "asked": 400}
    assert 300 < len(tokenizer) <= 400
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    lines = file.read_text(encoding="utf-8").splitlines()
    ids = [tokenizer.encode(line, add_special_tokens=False) for line in lines]
    assert [tokenizer.decode(each) for each in ids] == lines
    assert sum(map(len, ids)) < 0.8 * sum(map(len, lines))
    others = [text for text in twenty_scripts if text == text.strip() and "\u2581" not in text][:2000]
    others = [text for text in others if not any(0xD800 <= ord(char) < 0xE000 for char in text)]
    assert [tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) for text in others] == others
    if "sentencepiece" in kind:
        plain = SentencePieceProcessor(model_file=str(output / "tokenizer.model"))
        assert [plain.encode(line) for line in lines] == ids


def test_what_cannot_be_trained_is_told(language: Language, tmp_path: Path, lmflow_cli: Cli) -> None:
    for flags, message in (
        (("--size", 100), "the least is 259"),
        (("--size", 300, "--algorithm", "bpe"), "--algorithm belongs to --kind sentencepiece"),
        (("--size", 300, "--kind", "wordpiece"), "'wordpiece' is not one of"),
        (("--size", 262, "--kind", "sentencepiece"), "--size 262 cannot be had of these files"),
    ):
        result = lmflow_cli("vocab", "train", "--files", language("CJK"), *flags, "--output", tmp_path / "output")
        assert result.status == 2, (message, result.stderr)
        assert message in result.stderr
        assert not (tmp_path / "output").exists()


def test_tokens_are_counted_by_file_and_field(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    text, rows = tmp_path / "text.txt", tmp_path / "rows.jsonl"
    lines = ["The quick brown fox", "  two  spaces ", "中文"]
    text.write_text("\r\n".join(lines) + "\n\n", encoding="utf-8")
    parallel = [{"en": "Hello there", "zh": "你好"}, {"en": "Goodbye", "zh": "再见"}]
    rows.write_text("\n".join(json.dumps(row) for row in parallel), encoding="utf-8")
    command = ("vocab", "measure", "--model", tiny_model, "--files", text, rows, "--field", "en,zh")
    found = lmflow_cli(*command, "--json").json()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    parts = {"text.txt": lines, **{f"rows.jsonl:{k}": [row[k] for row in parallel] for k in ("en", "zh")}}
    assert found == [_expected(tokenizer, name, texts) for name, texts in parts.items()]
    table = lmflow_cli(*command).stdout.splitlines()
    assert table[0].split()[:3] == ["TEXT", "TEXTS", "TOKENS"]
    assert [line.split()[0] for line in table[1:]] == list(parts)


def _expected(tokenizer: Any, name: str, texts: list[str]) -> dict[str, object]:
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    tokens, whole = sum(map(len, ids)), " ".join(texts)
    counts = {
        "characters": sum(map(len, texts)),
        "words": len(whole.split()),
        "bytes": sum(len(text.encode()) for text in texts),
    }
    ratios = {f"tokens_per_{name[:-1]}": tokens / count for name, count in counts.items()}
    return {"name": name, "texts": len(texts), **counts, "tokens": tokens, "unchanged": len(texts), **ratios}


def test_a_field_that_is_missing_is_told_by_row(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"other": "b"}\n')
    result = lmflow_cli("vocab", "measure", "--model", tiny_model, "--files", rows)
    assert result.status == 2
    assert f"{rows}, row 2: it has no text in the field 'text'" in result.stderr
    latin = tmp_path / "latin.txt"
    latin.write_bytes("é".encode("latin-1"))
    assert "it is not UTF-8 text" in lmflow_cli("vocab", "measure", "--model", tiny_model, "--files", latin).stderr


def test_a_flag_takes_all_values_that_follow() -> None:
    given = ["--files", "a", "b", "--size", "3", "--files", "c", "-"]
    assert spread(given, "--files") == [
        *("--files", "a", "--files", "b", "--size", "3", "--files", "c", "--files", "-"),
    ]
    assert spread(["--files=a", "x"], "--files") == ["--files=a", "x"]
