"""An extended model: what stays to the bit, what is new, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model, make_tokenizer
from lmflow_vocabulary.record import KEY

Cli = Callable[..., CliResult]
Language = Callable[..., Path]
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def _extend(lmflow_cli: Cli, model: Path, files: Path, output: Path, *flags: object, size: int = 60) -> dict[str, Any]:
    command = ("vocab", "extend", "--model", model, "--files", files, "--size", size, "--output", output, "--json")
    result = lmflow_cli(*command, *flags)
    assert result.status == 0, result.stderr
    told: dict[str, Any] = result.json()
    return told


def _ids(folder: Path, texts: list[str]) -> list[list[int]]:
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def test_text_without_the_script_keeps_its_ids_and_all_text_comes_back(
    tiny_model: Path, language: Language, code_and_english: list[str], twenty_scripts: list[str], tmp_path: Path,
    lmflow_cli: Cli,
) -> None:  # fmt: skip
    file, new = language("CJK"), tmp_path / "new"
    told = _extend(lmflow_cli, tiny_model, file, new)
    assert told == {
        "output": str(new), "scripts": ["CJK"], "tokens_before": 400, "new_tokens": 60, "rows_before": 400, "rows": 512,
    }  # fmt: skip
    assert _ids(new, code_and_english) == _ids(tiny_model, code_and_english)
    others = [text for text in twenty_scripts if not any("\u3000" <= char <= "\uffef" for char in text)]
    assert len(others) > 8000
    assert _ids(new, others) == _ids(tiny_model, others)
    backend = AutoTokenizer.from_pretrained(new).backend_tokenizer
    encodings = backend.encode_batch_fast(twenty_scripts, add_special_tokens=False)
    assert backend.decode_batch([encoding.ids for encoding in encodings]) == twenty_scripts
    lines = file.read_text(encoding="utf-8").splitlines()
    before, after = (sum(map(len, _ids(folder, lines))) for folder in (tiny_model, new))
    assert after < 0.6 * before
    used = {number for ids in _ids(new, lines) for number in ids}
    assert used - set(range(400)) <= set(range(400, 460))
    assert len(used & set(range(400, 460))) > 30


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_begin_as_the_mean_of_their_pieces(
    tied: bool, language: Language, tmp_path: Path, lmflow_cli: Cli
) -> None:
    old = make_tiny_model(tmp_path / "old", tie_word_embeddings=tied)
    new = tmp_path / "new"
    _extend(lmflow_cli, old, language("CJK"), new)
    before, after = load_file(old / "model.safetensors"), load_file(new / "model.safetensors")
    assert before.keys() == after.keys()
    assert (_HEAD in after) != tied
    grown = [_EMBEDDINGS] if tied else [_EMBEDDINGS, _HEAD]
    assert all(torch.equal(before[name], after[name]) for name in before if name not in grown)
    tokenizer = AutoTokenizer.from_pretrained(old).backend_tokenizer
    texts = {n: AutoTokenizer.from_pretrained(new).decode([n]) for n in range(400, 460)}
    whole = {number: text for number, text in texts.items() if "\ufffd" not in text}
    assert len(whole) > 30
    for name in grown:
        assert torch.equal(after[name][:400], before[name])
        for number, text in whole.items():
            pieces = tokenizer.encode(text, add_special_tokens=False).ids
            assert torch.allclose(after[name][number], before[name][pieces].mean(0), atol=1e-6), text
        assert torch.allclose(after[name][460:], before[name].mean(0).expand(52, -1), atol=1e-6)


def test_plain_transformers_loads_it_and_computes_old_text_as_before(
    language: Language, tmp_path: Path, lmflow_cli: Cli
) -> None:
    old, new = make_tiny_model(tmp_path / "old", tie_word_embeddings=False), tmp_path / "new"
    _extend(lmflow_cli, old, language("Devanagari"), new, "--init", "global-mean")
    ids = torch.tensor([[5, 90, 300, 7, 44]])
    networks = [AutoModelForCausalLM.from_pretrained(folder) for folder in (old, new)]
    assert [len(network.get_input_embeddings().weight) for network in networks] == [400, 512]
    with torch.no_grad():
        found = [network(input_ids=ids).logits for network in networks]
    assert torch.equal(found[0], found[1][..., :400])
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (old, new)]
    chat = [{"role": "user", "content": "Hello"}]
    rendered = [t.apply_chat_template(chat, return_dict=False) for t in tokenizers]
    assert rendered[0] == rendered[1]
    assert [t.eos_token_id for t in tokenizers] == [2, 2]
    table = networks[1].get_input_embeddings().weight
    assert torch.allclose(table[400], table[:400].mean(0), atol=1e-6)


def test_padding_is_used_up_before_rows_are_added(language: Language, tmp_path: Path, lmflow_cli: Cli) -> None:
    old = make_tiny_model(tmp_path / "old", vocab_size=448)
    told = _extend(lmflow_cli, old, language("CJK"), tmp_path / "fits", size=40)
    assert (told["tokens_before"], told["rows_before"], told["rows"]) == (400, 448, 448)
    told = _extend(lmflow_cli, old, language("CJK"), tmp_path / "grows", "--pad-to", 10, size=55)
    assert told["rows"] == 460
    weights = load_file(tmp_path / "grows" / "model.safetensors")[_EMBEDDINGS]
    before = load_file(old / "model.safetensors")[_EMBEDDINGS]
    assert weights.shape == (460, 32)
    assert torch.equal(weights[:400], before[:400])


def test_tokens_added_behind_the_vocabulary_stay_where_they_are(
    language: Language, code_and_english: list[str], tmp_path: Path, lmflow_cli: Cli
) -> None:
    old = make_tiny_model(tmp_path / "old", vocab_size=448)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    tokenizer.add_tokens(["plainword"])
    tokenizer.save_pretrained(old)
    told = _extend(lmflow_cli, old, language("CJK"), tmp_path / "new")
    assert told["tokens_before"] == 402
    after = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert after.convert_tokens_to_ids(["<tool>", "plainword"]) == [400, 401]
    assert after.all_special_ids == AutoTokenizer.from_pretrained(old).all_special_ids
    texts = ["a <tool> b plainword c", *code_and_english[:200]]
    assert _ids(tmp_path / "new", texts) == _ids(old, texts)


def test_an_extended_model_is_extended_again(
    language: Language, tmp_path: Path, tiny_model: Path, lmflow_cli: Cli
) -> None:
    _extend(lmflow_cli, tiny_model, language("CJK"), tmp_path / "one")
    told = _extend(lmflow_cli, tmp_path / "one", language("Devanagari"), tmp_path / "two", size=50)
    assert (told["tokens_before"], told["rows_before"], told["rows"]) == (460, 512, 512)
    config = AutoConfig.from_pretrained(tmp_path / "two").to_dict()
    merges = len(json.loads((tiny_model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"])
    assert config[KEY] == {"first": 460, "tokens": 50, "base_tokens": 400, "base_merges": merges}
    chinese = language("CJK").read_text(encoding="utf-8").splitlines()
    assert _ids(tmp_path / "two", chinese) == _ids(tmp_path / "one", chinese)


def test_weights_in_several_files_are_written_file_by_file(language: Language, tmp_path: Path, lmflow_cli: Cli) -> None:
    old = make_tiny_model(tmp_path / "old", tie_word_embeddings=False)
    whole = load_file(old / "model.safetensors")
    (old / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + n % 3}-of-00003.safetensors" for n, name in enumerate(sorted(whole))}
    for file in set(places.values()):
        held = {name: tensor for name, tensor in whole.items() if places[name] == file}
        save_file(held, old / file, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in whole.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (old / "model.safetensors.index.json").write_text(json.dumps(index))
    _extend(lmflow_cli, old, language("CJK"), tmp_path / "new")
    written = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert written["weight_map"] == places
    assert written["metadata"]["total_size"] == size + 2 * 112 * 32 * 4
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert torch.equal(network.lm_head.weight[:400], whole[_HEAD])


def test_a_head_with_a_bias_grows_with_it(language: Language, tmp_path: Path, lmflow_cli: Cli) -> None:
    old = tmp_path / "old"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = AutoConfig.for_model("phi", vocab_size=400, bos_token_id=1, eos_token_id=2, **sizes)
    network = AutoModelForCausalLM.from_config(config)
    torch.nn.init.normal_(network.lm_head.bias)
    network.save_pretrained(old)
    make_tokenizer().save_pretrained(old)
    _extend(lmflow_cli, old, language("CJK"), tmp_path / "new")
    bias = load_file(tmp_path / "new" / "model.safetensors")["lm_head.bias"]
    assert bias.shape == (512,)
    assert torch.equal(bias[:400], network.lm_head.bias)


def test_the_scripts_may_be_named(language: Language, tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    both = tmp_path / "both.txt"
    both.write_text(language("CJK").read_text("utf-8") + language("Thai").read_text("utf-8"), encoding="utf-8")
    told = _extend(lmflow_cli, tiny_model, both, tmp_path / "both")
    assert told["scripts"] == ["CJK", "THAI"]
    told = _extend(lmflow_cli, tiny_model, both, tmp_path / "thai", "--scripts", "thai")
    assert told["scripts"] == ["THAI"]
    chinese = language("CJK").read_text("utf-8").splitlines()
    assert _ids(tmp_path / "thai", chinese) == _ids(tiny_model, chinese)


def test_fewer_tokens_than_asked_for_are_told(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    file = tmp_path / "short.txt"
    file.write_text("中文中文\n", encoding="utf-8")
    command = ("vocab", "extend", "--model", tiny_model, "--files", file, "--size", 100, "--output", tmp_path / "new")
    result = lmflow_cli(*command)
    assert result.status == 0
    assert "5 new tokens of CJK behind 400" in result.stdout
    assert "--size 100 were asked for" in result.stderr


def test_what_cannot_be_extended_is_told(tiny_model: Path, language: Language, tmp_path: Path, lmflow_cli: Cli) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = tmp_path / "words"
    shutil.copytree(tiny_model, words)
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    kind: Any = PreTrainedTokenizerFast
    kind(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(words)
    empty, once, english = tmp_path / "empty.txt", tmp_path / "once.txt", tmp_path / "english.txt"
    empty.write_text("\n \n")
    once.write_text("ab 中 ab", encoding="utf-8")
    english.write_text("plain English\n")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("x")
    chinese = language("CJK")
    quantised = tmp_path / "quantised"
    shutil.copytree(tiny_model, quantised)
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    for model, file, flags, message in (
        (words, chinese, (), "has a WordPiece tokenizer, which cannot be extended"),
        (tiny_model, empty, (), "there is no text in it"),
        (tiny_model, once, (), "no new token is found"),
        (tiny_model, english, (), "no letter beyond ASCII"),
        (tiny_model, tmp_path / "none.txt", (), "it cannot be read"),
        (tiny_model, chinese, ("--scripts", "THAI"), "hold no letter of it"),
        (tiny_model, chinese, ("--size", "0"), "0 is not in the range x>=1"),
        (quantised, chinese, (), "quantised weights"),
    ):
        output = tmp_path / "output"
        command = ("vocab", "extend", "--model", model, "--files", file, "--size", 60, "--output", output)
        result = lmflow_cli(*command, *flags)
        assert result.status == 2, (message, result.stderr)
        assert message in result.stderr
        assert not output.exists()
    result = lmflow_cli("vocab", "extend", "--model", tiny_model, "--files", chinese, "--size", 9, "--output", taken)
    assert result.status == 2
    assert "already holds files" in result.stderr


def test_a_model_with_an_adapter_is_refused(
    tiny_model: Path, language: Language, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    pytest.importorskip("lmflow_lora", reason="the adapter is one of the plugin lora")
    rows = write_rows([{"text": "The quick brown fox."}])
    command = ("finetune", "--model", tiny_model, "--dataset", rows, "--tuner", "lora", "--output", tmp_path / "lora")
    assert lmflow_cli(*command, "--epochs", 1).status == 0
    command = ("vocab", "extend", "--model", tmp_path / "lora", "--files", language("CJK"), "--size", 60)
    result = lmflow_cli(*command, "--output", tmp_path / "new")
    assert result.status == 2
    assert "merge it first with lmflow merge" in result.stderr
