"""SentencePiece models, BPE and unigram: both of their files are extended alike, and old text keeps its ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]
Language = Callable[..., Path]
SIZE = 600


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def old(request: pytest.FixtureRequest, code_and_english: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small Llama whose tokenizer is a SentencePiece model of English and code."""
    from lmflow_vocabulary.training import train

    root = tmp_path_factory.mktemp("old")
    text = root / "text.txt"
    text.write_text("\n".join(code_and_english[:3000]), encoding="utf-8")
    train([text], "text", SIZE, "sentencepiece", request.param, root / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=SIZE, bos_token_id=1, eos_token_id=2, **sizes))
    network.save_pretrained(root / "model")
    return root / "model"


def test_both_files_are_extended_alike(
    old: Path, language: Language, code_and_english: list[str], twenty_scripts: list[str], tmp_path: Path,
    lmflow_cli: Cli,
) -> None:  # fmt: skip
    file, new = language("CJK"), tmp_path / "new"
    command = ("vocab", "extend", "--model", old, "--files", file, "--size", 100, "--output", new, "--json")
    result = lmflow_cli(*command)
    assert result.status == 0, result.stderr
    told = result.json()
    assert (told["tokens_before"], told["new_tokens"]) == (SIZE, 100)
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (old, new))
    others = [*code_and_english, *(t for t in twenty_scripts if not any("\u3000" <= c <= "\uffef" for c in t))]
    assert _fast(after, others) == _fast(before, others)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert sum(map(len, _fast(after, lines))) < 0.5 * sum(map(len, _fast(before, lines)))
    plain, former = (SentencePieceProcessor(model_file=str(folder / "tokenizer.model")) for folder in (new, old))
    assert plain.vocab_size() == SIZE + 100
    assert [plain.encode(line) for line in lines] == _fast(after, lines)
    assert [plain.encode(text) for text in others] == [former.encode(text) for text in others]
    assert after.batch_decode(_fast(after, lines)) == lines


def test_characters_begin_as_the_mean_of_their_bytes(
    old: Path, language: Language, tmp_path: Path, lmflow_cli: Cli
) -> None:
    new = tmp_path / "new"
    command = ("vocab", "extend", "--model", old, "--files", language("Thai"), "--size", 90, "--output", new)
    assert lmflow_cli(*command).status == 0
    weights = [load_file(folder / "model.safetensors")["model.embed_tokens.weight"] for folder in (old, new)]
    assert torch.equal(weights[1][:SIZE], weights[0])
    vocabulary = AutoTokenizer.from_pretrained(new).get_vocab()
    byte_of = {int(text[3:5], 16): n for text, n in vocabulary.items() if len(text) == 6 and text.startswith("<0x")}
    letters = {text: n for text, n in vocabulary.items() if n >= SIZE and len(text) == 1}
    assert len(letters) > 20
    for text, number in letters.items():
        rows = weights[0][[byte_of[byte] for byte in text.encode("utf-8")]]
        assert torch.allclose(weights[1][number], rows.mean(0), atol=1e-6)
    words = {text: n for text, n in vocabulary.items() if n >= SIZE and len(text) > 1 and "\u2581" not in text}
    assert words
    for text, number in words.items():
        rows = weights[0][[byte_of[byte] for byte in text.encode("utf-8")]]
        assert torch.allclose(weights[1][number], rows.mean(0), atol=1e-6)


def _fast(tokenizer: object, texts: list[str]) -> list[list[int]]:
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
