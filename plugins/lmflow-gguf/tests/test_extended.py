"""A model whose vocabulary was extended: its files are the converter's, and it is known by what it was before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmflow_core.api import RequestError
from lmflow_core.testing.fixtures import CliResult
from lmflow_gguf import vocabulary
from lmflow_gguf.vocabulary import recognised_pre_tokenizer

# Made by: python dev/gguf_oracle.py LLAMA_CPP_SOURCES --records extended
ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oracle-extended.json").read_text("utf-8"))
# What a file tells of its own name and of the folder it came from.
_NAMES = ("general.name", "general.basename", "general.finetune", "general.version", "general.size_label")


@pytest.mark.parametrize("name", ORACLE)
def test_a_file_of_an_extended_model_is_that_of_the_converter(
    name: str,
    model_folder: Callable[[str], Path],
    describe: Callable[[Path], dict[str, Any]],
    extension: list[str],
    tmp_path: Path,
    lmflow_cli: Callable[..., CliResult],
) -> None:
    pytest.importorskip("lmflow_vocabulary", reason="it extends the vocabulary")
    new, file = tmp_path / "new", tmp_path / "new.gguf"
    result = lmflow_cli("vocab", "extend", "--model", model_folder(name), *extension, "--output", new)
    assert result.status == 0, result.stderr
    written = ("--format", "gguf", "--type", "F32", "--pre-tokenizer", "gpt-2", "--output", file)
    assert lmflow_cli("export", "--model", new, *written).status == 0
    ours, theirs = describe(file), ORACLE[name]
    assert ours["tensors"] == theirs["tensors"]
    for keys in (ours["keys"], theirs["keys"]):
        for key in _NAMES:
            keys.pop(key, None)
    assert ours["keys"] == theirs["keys"]


def _extended(base: Any) -> tuple[Any, dict[str, Any]]:
    """Return a tokenizer with merges for the first Chinese character of llama.cpp's text, and what tells of it."""
    steps = json.loads(base.backend_tokenizer.to_str())
    model = steps["model"]
    told = {"base_tokens": len(base), "base_merges": len(model["merges"])}
    letters = [piece for piece in base.tokenize("我") if len(piece) == 1]
    assert len(letters) == 3
    for at, merge in enumerate(((letters[0], letters[1]), (letters[0] + letters[1], letters[2]))):
        model["merges"].append(list(merge))
        model["vocab"]["".join(merge)] = len(base) + at
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=Tokenizer.from_str(json.dumps(steps))), told


def test_an_extended_tokenizer_has_the_pre_tokenizer_of_its_base(
    model_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = AutoTokenizer.from_pretrained(model_folder("qwen3"))
    text = vocabulary._known_pre_tokenizers()["text"]
    digest = hashlib.sha256(str(base.encode(text)).encode()).hexdigest()
    table = {"text": text, "ids": {digest: "qwen2"}}
    monkeypatch.setattr(vocabulary, "_known_pre_tokenizers", lambda: table)
    extended, told = _extended(base)
    assert extended.encode(text) != base.encode(text)
    assert recognised_pre_tokenizer(base, {}) == "qwen2"
    assert recognised_pre_tokenizer(extended, {vocabulary.EXTENSION_KEY: told}) == "qwen2"
    for wrong in ({}, {vocabulary.EXTENSION_KEY: {**told, "base_merges": None}}, {vocabulary.EXTENSION_KEY: 3}):
        with pytest.raises(RequestError, match="--pre-tokenizer"):
            recognised_pre_tokenizer(extended, wrong)
