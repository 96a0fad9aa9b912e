"""Our files are those of llama.cpp's own converter, tensor by tensor and key by key, as its record has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from lmflow_core.api import ModelError, RequestError
from lmflow_core.testing.fixtures import CliResult
from lmflow_gguf.architectures import ARCHITECTURES
from lmflow_gguf.convert import convert, make_source
from lmflow_gguf.metadata import RUN_KEY
from lmflow_gguf.vocabulary import pre_tokenizer_names, read_vocabulary, recognised_pre_tokenizer

# Made by: python dev/gguf_oracle.py LLAMA_CPP_SOURCES
ORACLE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oracle.json").read_text(encoding="utf-8"))
SCALED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oracle-scaled.json").read_text(encoding="utf-8"))
# What a file tells of its own name and of the folder it came from.
NAMES = ("general.name", "general.basename", "general.finetune", "general.version", "general.organization")
Models = Callable[[str], Path]
Describe = Callable[[Path], dict[str, Any]]


def _convert(folder: Path, file: Path, type_name: str = "F32", pre: str | None = "gpt-2", **changes: Any) -> Path:
    config = AutoConfig.from_pretrained(folder).to_dict() | changes
    source = make_source(folder, folder.name, config, AutoTokenizer.from_pretrained(folder))
    convert(source, file, type_name, pre)
    return file


def _key(file: Path, name: str) -> Any:
    field = gguf.GGUFReader(file).fields.get(name)
    return None if field is None else field.contents()


@pytest.mark.parametrize("type_name", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", ORACLE)
def test_a_file_is_that_of_the_converter(
    name: str, type_name: str, model_folder: Models, describe: Describe, tmp_path: Path
) -> None:
    ours = describe(_convert(model_folder(name), tmp_path / "model.gguf", type_name.upper()))
    theirs = ORACLE[name][type_name]
    assert ours["tensors"] == theirs["tensors"]
    for keys in (ours["keys"], theirs["keys"]):
        for key in NAMES:
            keys.pop(key, None)
    assert ours["keys"] == theirs["keys"]


def _export(lmflow_cli: Callable[..., CliResult], model: Path, scheme: str, file: Path) -> CliResult:
    pytest.importorskip("lmflow_position_scaling", reason="positions are scaled by the plugin that knows the schemes")
    written = ("--format", "gguf", "--type", "F32", "--pre-tokenizer", "gpt-2", "--output", file)
    scaled = ("--position-scaling", scheme, "--position-scaling-factor", 2)
    return lmflow_cli("export", "--model", model, *scaled, *written)


@pytest.mark.parametrize(("name", "scheme"), [(name, scheme) for name in SCALED for scheme in SCALED[name]])
def test_a_model_scaled_while_it_is_exported_is_that_of_the_converter(
    name: str,
    scheme: str,
    lmflow_cli: Callable[..., CliResult],
    describe: Describe,
    sharp_folder: Models,
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.gguf"
    assert _export(lmflow_cli, sharp_folder(name), scheme, file).status == 0
    ours, theirs = describe(file), SCALED[name][scheme]
    assert ours["tensors"] == theirs["tensors"]
    # Saving wrote the tokenizer anew before the converter read it, with a template of ours or tokens of its class.
    own, others = (
        {key: value for key, value in keys.items() if key not in NAMES and not key.startswith("tokenizer.")}
        for keys in (ours["keys"], theirs["keys"])
    )
    assert own == others


_LOST = {
    ("llama", "dynamic-ntk"): "dynamic scaling of rotary positions is not known for it, only: linear, yarn, llama3",
    ("llama", "longrope"): "longrope scaling of rotary positions is not known",
    ("qwen3", "llama3"): "llama3 scaling of rotary positions is not known for it, only: linear, yarn",
    ("gemma", "linear"): "linear scaling of rotary positions is not known for it, only: none",
    ("gemma2", "ntk"): "rope_theta is 20945.9, not 10000",
    ("phi3-short", "yarn"): "yarn scaling of rotary positions is not known for it, only: longrope, su",
}


@pytest.mark.parametrize(("name", "scheme"), _LOST)
def test_a_scaling_that_would_be_lost_is_refused_and_nothing_written(
    name: str, scheme: str, lmflow_cli: Callable[..., CliResult], model_folder: Models, tmp_path: Path
) -> None:
    refused = _export(lmflow_cli, model_folder(name), scheme, tmp_path / "model.gguf")
    assert refused.status == 2
    assert _LOST[name, scheme] in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_architecture_is_recorded(model_folder: Models) -> None:
    recorded = {AutoConfig.from_pretrained(model_folder(name)).architectures[0] for name in ORACLE}
    # The texts of models that see have a record of their own.
    assert recorded == {name for name in ARCHITECTURES if not name.endswith("TextModel")}


def test_experts_in_one_tensor_are_those_stored_one_by_one(
    model_folder: Models, describe: Describe, tmp_path: Path
) -> None:
    folder = tmp_path / "fused"
    shutil.copytree(model_folder("qwen3-moe"), folder)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.experts"
        experts = [
            [tensors.pop(f"{stem}.{number}.{part}_proj.weight") for part in ("gate", "up", "down")]
            for number in range(4)
        ]
        tensors[f"{stem}.gate_up_proj"] = torch.stack([torch.cat(parts[:2]) for parts in experts])
        tensors[f"{stem}.down_proj"] = torch.stack([parts[2] for parts in experts])
    save_file(tensors, folder / "model.safetensors")
    fused = describe(_convert(folder, tmp_path / "fused.gguf"))
    assert fused["tensors"] == ORACLE["qwen3-moe"]["f32"]["tensors"]


@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_what_is_stored_in_sixteen_bits_keeps_every_one(stored: str, model_folder: Models, tmp_path: Path) -> None:
    folder = tmp_path / stored
    shutil.copytree(model_folder("qwen3"), folder)
    dtype = getattr(torch, stored)
    tensors = {name: values.to(dtype) for name, values in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    file = _convert(folder, tmp_path / "model.gguf", {"bfloat16": "BF16", "float16": "F16"}[stored])
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}["blk.0.attn_q.weight"]
    values = gguf.quants.dequantize(found.data, found.tensor_type)
    expected = tensors["model.layers.0.self_attn.q_proj.weight"].float().numpy()
    assert np.array_equal(values, expected)


def test_another_architecture_is_refused_with_the_list(tiny_model: Path) -> None:
    with pytest.raises(
        ModelError, match=r"FalconForCausalLM cannot be written as GGUF; these can: LlamaForCausalLM, .*"
    ):
        make_source(tiny_model, "x", {"architectures": ["FalconForCausalLM"]}, None)


REFUSED = {
    "llama": ({"hidden_act": "gelu"}, "the activation gelu is not silu"),
    "gemma2": ({"query_pre_attn_scalar": 64}, "query_pre_attn_scalar is 64, not 32"),
    "qwen3-moe": ({"norm_topk_prob": False}, "norm_topk_prob is False, not True"),
    "qwen2-moe": ({"norm_topk_prob": True}, "norm_topk_prob is True, not False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_compute_wrongly_is_refused(name: str, model_folder: Models, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ModelError, match=f"would compute this .* model wrongly: {message}"):
        _convert(model_folder(name), tmp_path / "model.gguf", **changes)


def test_dynamic_scaling_of_rope_is_refused(model_folder: Models, tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(ModelError, match="dynamic scaling of rotary positions is not known"):
        _convert(model_folder("llama"), tmp_path / "model.gguf", rope_parameters=rope)


def test_an_unknown_pre_tokenizer_is_never_guessed(model_folder: Models, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="name the one it was made from with --pre-tokenizer"):
        _convert(model_folder("qwen3"), tmp_path / "model.gguf", pre=None)
    assert _key(_convert(model_folder("qwen3"), tmp_path / "given.gguf", pre="qwen2"), "tokenizer.ggml.pre") == "qwen2"
    assert {"gpt-2", "llama-bpe", "qwen2", "smollm", "default"} <= set(pre_tokenizer_names())


@pytest.mark.slow
def test_the_pre_tokenizer_of_a_real_model_is_recognised(smollm2_folder: Path) -> None:
    assert recognised_pre_tokenizer(AutoTokenizer.from_pretrained(smollm2_folder), {}) == "smollm"


def test_tokens_added_by_a_user_are_written(model_folder: Models, tmp_path: Path) -> None:
    for name in ("llama", "qwen3"):
        folder = tmp_path / name
        shutil.copytree(model_folder(name), folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["<plain>"])
        tokenizer.add_tokens(["<mark>"], special_tokens=True)
        tokenizer.save_pretrained(folder)
        file = _convert(folder, tmp_path / f"{name}.gguf")
        tokens, types = _key(file, "tokenizer.ggml.tokens"), _key(file, "tokenizer.ggml.token_type")
        assert types[tokens.index("<plain>")] == gguf.TokenType.USER_DEFINED
        assert types[tokens.index("<mark>")] == gguf.TokenType.CONTROL


def test_a_sentencepiece_vocabulary_without_its_file_has_scores_in_the_order_of_its_merges(
    model_folder: Models, tmp_path: Path
) -> None:
    folder = tmp_path / "fast"
    shutil.copytree(model_folder("llama"), folder)
    (folder / "tokenizer.model").unlink()
    ours = _convert(folder, tmp_path / "fast.gguf")
    theirs = _convert(model_folder("llama"), tmp_path / "slow.gguf")
    for name in ("tokens", "token_type"):
        assert _key(ours, f"tokenizer.ggml.{name}") == pytest.approx(_key(theirs, f"tokenizer.ggml.{name}"))
    tokens, scores = _key(ours, "tokenizer.ggml.tokens"), _key(ours, "tokenizer.ggml.scores")
    original = _key(theirs, "tokenizer.ggml.scores")
    merged = [number for number, text in enumerate(tokens) if len(text) > 1 and not text.startswith("<")]
    ranked = sorted(merged, key=lambda number: -original[number])
    assert sorted(merged, key=lambda number: -scores[number]) == ranked


def test_a_missing_tokenizer_is_told(model_folder: Models, tmp_path: Path) -> None:
    byte_level = AutoTokenizer.from_pretrained(model_folder("qwen3"))
    with pytest.raises(ModelError, match=r"has no tokenizer.model, nor a tokenizer.json with byte fallback"):
        read_vocabulary(tmp_path, byte_level, {"vocab_size": 500}, ARCHITECTURES["GemmaForCausalLM"], None)


def test_damaged_weights_are_told(model_folder: Models, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(model_folder("llama"), folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged, message in (
        (whole[:-100], "is truncated: .* would end at byte"),
        (b"\xff" * 8 + whole[8:], "its header does not fit into it"),
        (whole[:8] + b"!" + whole[9:], "its header is not JSON"),
    ):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=message):
            _convert(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_shards_are_read_as_their_index_says(model_folder: Models, describe: Describe, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert describe(_convert(folder, tmp_path / "model.gguf"))["tensors"] == ORACLE["llama"]["f32"]["tensors"]
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002.safetensors"):
        _convert(folder, tmp_path / "model.gguf")


def test_a_file_tells_of_the_run_that_made_it_but_not_of_its_paths(model_folder: Models, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(model_folder("llama"), folder)
    record = {
        "options": {"model": "/home/me/Base-1B", "dataset": ["/home/me/secret.json"], "tuner": "lisa", "seed": 3},
        "versions": {"lmflow_core": "0.1.0", "plugin_digest": "abc"},
        "steps": 7,
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    file = _convert(folder, tmp_path / "model.gguf")
    told = json.loads(_key(file, RUN_KEY))
    assert told == {
        "tuner": "lisa", "seed": 3, "lmflow": "0.1.0", "plugin_digest": "abc", "steps": 7, "finished": None
    }  # fmt: skip
    assert _key(file, "general.license") == "apache-2.0"
    assert _key(file, "general.base_model.0.name") == "Base-1B"
    assert b"/home/me" not in file.read_bytes()
