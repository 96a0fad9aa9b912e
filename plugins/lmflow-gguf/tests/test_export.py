"""Exporting from the command line: files and folders, adapters, Ollama, LLaMA's layout, and what is refused."""

from __future__ import annotations

import errno
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmflow_core.api import ModelSettings
from lmflow_core.testing.disks import full_behind, sizes_of
from lmflow_core.testing.fixtures import CliResult
from lmflow_gguf.options import GgufOptions, OllamaOptions
from lmflow_transformers.api import CausalModelLoader

Models = Callable[[str], Path]
Cli = Callable[..., CliResult]
PRE = ("--pre-tokenizer", "gpt-2")


def _export(cli: Cli, model: object, output: Path, *more: object) -> CliResult:
    return cli("export", "--model", model, "--format", "gguf", "--output", output, *PRE, *more)


@pytest.fixture
def lora_folder(model_folder: Models, tmp_path: Path) -> Path:
    """Make an adapter of the small Qwen 3 as a run leaves it."""
    pytest.importorskip("lmflow_lora", reason="adapters are opened by the plugin that makes them")
    from peft import LoraConfig, get_peft_model

    network = AutoModelForCausalLM.from_pretrained(model_folder("qwen3"), dtype=torch.float32)
    torch.manual_seed(0)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    folder = tmp_path / "my-run"
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder("qwen3")).save_pretrained(folder)
    record = {"options": {"model": str(model_folder("qwen3")), "tuner": "lora", "lora_r": 4}, "steps": 3}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_the_output_may_be_a_file_or_a_folder(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    file = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "new" / "small.gguf", "--json").json()
    assert file["files"] == {"small.gguf": (tmp_path / "new" / "small.gguf").stat().st_size}
    folder = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "out", "--type", "f32,q8_0", "--json").json()
    assert sorted(folder["files"]) == ["qwen3-F32.gguf", "qwen3-Q8_0.gguf"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(folder["files"])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["small.gguf"]


def test_a_file_that_is_there_is_replaced_only_when_asked(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli
) -> None:
    file = tmp_path / "small.gguf"
    file.write_text("mine")
    refused = _export(lmflow_cli, model_folder("qwen3"), file)
    assert refused.status == 2
    assert "exists already" in refused.stderr
    assert file.read_text() == "mine"
    assert _export(lmflow_cli, model_folder("qwen3"), file, "--overwrite").status == 0
    assert file.read_bytes()[:4] == b"GGUF"


def test_several_types_do_not_fit_into_one_file(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    refused = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf", "--type", "f32,f16")
    assert refused.status == 2
    assert "give --output a folder" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_are_read_without_loading_the_model(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    assert _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf").status == 0


def test_an_adapter_is_merged_on_the_way(
    model_folder: Models, lora_folder: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    merged = tmp_path / "merged"
    assert lmflow_cli("merge", "--model", lora_folder, "--output", merged).status == 0
    assert _export(lmflow_cli, merged, tmp_path / "a.gguf", "--type", "f32").status == 0
    assert _export(lmflow_cli, lora_folder, tmp_path / "out", "--type", "f32").status == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.name == "my-run-F32.gguf"
    ours, theirs = gguf.GGUFReader(file), gguf.GGUFReader(tmp_path / "a.gguf")
    for first, second in zip(ours.tensors, theirs.tensors, strict=True):
        assert first.name == second.name
        assert (first.data == second.data).all()
    told = json.loads(ours.fields["lmflow.run"].contents())
    assert told["tuner"] == "lora"
    assert told["steps"] == 3


def test_a_disk_that_refuses_small_tensors_is_told(lora_folder: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    flags = ("export", "--model", lora_folder, "--format", "gguf-adapter", "--output")
    assert lmflow_cli(*flags, tmp_path / "whole").status == 0
    (size,) = sizes_of(tmp_path / "whole").values()
    for least in (size // 2, size - 100):
        with full_behind(least):
            refused = lmflow_cli(*flags, tmp_path / "short")
        assert refused.status != 0
        assert "cannot be written: File too large" in refused.stderr
        assert not (tmp_path / "short").exists()


def test_an_adapter_alone_is_a_file_for_llama_cpp(lora_folder: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    result = lmflow_cli(
        "export", "--model", lora_folder, "--format", "gguf-adapter", "--type", "f16", "--output", tmp_path / "a.gguf"
    )
    assert result.status == 0, result.stderr
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["adapter.lora.alpha"].contents() == 8.0
    assert len(reader.tensors) == 2 * 7 * 2


ADAPTERS = {
    "use_dora": (True, "holds a DoRA adapter"),
    "modules_to_save": (["lm_head"], r"holds whole layers \(lm_head\)"),
    "peft_type": ("IA3", "holds a IA3 adapter; GGUF has LoRA alone"),
}


@pytest.mark.parametrize("key", ADAPTERS)
def test_adapters_that_llama_cpp_cannot_put_on_are_refused(
    key: str, lora_folder: Path, tmp_path: Path, lmflow_cli: Cli
) -> None:
    value, message = ADAPTERS[key]
    file = lora_folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    result = lmflow_cli("export", "--model", lora_folder, "--format", "gguf-adapter", "--output", tmp_path / "a.gguf")
    assert result.status == 2
    assert re.search(message, result.stderr)


def test_an_adapter_is_needed_to_export_one(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    result = lmflow_cli(
        "export", "--model", model_folder("qwen3"), "--format", "gguf-adapter", "--output", tmp_path / "a"
    )
    assert result.status == 2
    assert "there is no adapter to export: add --adapter FOLDER" in result.stderr


def test_a_gguf_file_is_exported_anew(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    source, again = tmp_path / "source.gguf", tmp_path / "again.gguf"
    assert _export(lmflow_cli, model_folder("llama"), source, "--type", "f32").status == 0
    assert _export(lmflow_cli, source, again, "--type", "f32").status == 0
    first, second = ({t.name: t for t in gguf.GGUFReader(file).tensors} for file in (source, again))
    assert first.keys() == second.keys()
    assert all((first[name].data == second[name].data).all() for name in first)


def test_an_unsupported_architecture_is_refused_with_the_list(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli
) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    folder = tmp_path / "neox"
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=500, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_folder("qwen3")).save_pretrained(folder)
    result = _export(lmflow_cli, folder, tmp_path / "x.gguf")
    assert result.status == 2
    assert "GPTNeoXForCausalLM cannot be written as GGUF; these can: LlamaForCausalLM" in result.stderr
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("output", ["x.gguf", "folder"])
def test_a_full_disk_leaves_nothing(
    output: str, model_folder: Models, tmp_path: Path, lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = gguf.GGUFWriter.write_tensor_data
    count = 0

    def full(self: Any, *arguments: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        if count > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, *arguments, **more)

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    result = _export(lmflow_cli, model_folder("qwen3"), tmp_path / output)
    assert result.status == 2
    assert "cannot be written: No space left on device" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unwritten_type_is_told_with_those_there_are(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    result = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf", "--type", "q4_k_x")
    assert result.status == 2
    assert "Q4_K_M" in result.stderr
    result = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf", "--type", "iq1_s")
    assert result.status == 2
    assert "add --calibration" in result.stderr
    with pytest.raises(ValueError, match="add --report"):
        GgufOptions(report_text=Path("x"))


def test_without_the_binding_one_message_tells_what_to_install(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmflow_gguf import runtime

    runtime.library.cache_clear()
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    try:
        result = _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf", "--type", "q4_k_m")
    finally:
        runtime.library.cache_clear()
    assert result.status == 2
    assert "in a checkout of LMFlow, pip install './plugins/lmflow-gguf[llama-cpp]'" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert _export(lmflow_cli, model_folder("qwen3"), tmp_path / "x.gguf", "--type", "q8_0").status == 0


# --- Ollama -----------------------------------------------------------------------------------------------------------


_IF_SYSTEM = re.compile(r"\{\{ if \.System \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}", re.DOTALL)
_LOOP = re.compile(
    r"\{\{ range \$i, \$m := \.Messages \}\}\{\{ if eq \$m\.Role \"user\" \}\}(.*?)"
    r"\{\{ else if eq \$m\.Role \"assistant\" \}\}(.*?)\{\{ end \}\}\{\{ end \}\}",
    re.DOTALL,
)


def _go(template: str, system: str | None, turns: list[tuple[str, str]]) -> str:
    """Render the one form of a Go template that is written here: a choice by system prompt, and a loop over turns."""
    head = _IF_SYSTEM.sub(lambda match: match[1] if system else match[2], template, count=1)
    loop = _LOOP.search(head)
    assert loop is not None
    forms = {"user": loop[1], "assistant": loop[2]}
    body = "".join(forms[role].replace("{{ $m.Content }}", content) for role, content in turns)
    whole = head[: loop.start()] + body + head[loop.end() :]
    assert "{{" not in whole.replace("{{ .System }}", "")
    return whole.replace("{{ .System }}", system or "")


@pytest.mark.parametrize("name", ["qwen3", "llama", "smollm2"])
def test_the_modelfile_renders_what_the_models_template_does(
    name: str, model_folder: Models, request: pytest.FixtureRequest
) -> None:
    from lmflow_core.api import Message
    from lmflow_gguf.ollama import go_template

    folder = model_folder("qwen3" if name == "smollm2" else name)
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    if name == "smollm2":
        model.tokenizer.inner.chat_template = (
            "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
            "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
        )
    template, stops = go_template(model)
    assert stops[0] == {"qwen3": "<|im_end|>", "llama": "</s>", "smollm2": "<|im_end|>"}[name]
    bos = model.tokenizer.bos or ""
    for system in (None, "Be brief."):
        for count in (1, 3, 5):
            turns = [(("user", "assistant")[n % 2], f"text {n}") for n in range(count)]
            messages = [Message(role, content) for role, content in turns]
            whole = ([Message("system", system)] if system else []) + messages
            assert bos + _go(template, system, turns) == model.tokenizer.render_chat(whole, True)


def test_ollama_gets_a_file_and_a_modelfile(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    result = lmflow_cli(
        "export", "--model", model_folder("qwen3"), "--format", "ollama", "--type", "q8_0", *PRE,
        "--ollama-system", "Be brief.", "--ollama-temperature", "0.5", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.status == 0, result.stderr
    text = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith('FROM ./qwen3-Q8_0.gguf\nTEMPLATE """')
    assert 'SYSTEM """Be brief."""' in text
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0.5" in text
    assert "PARAMETER num_ctx 256" in text
    assert OllamaOptions().type == "Q4_K_M"


def test_a_model_without_a_template_has_no_modelfile(model_folder: Models, tmp_path: Path, lmflow_cli: Cli) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(model_folder("qwen3"), folder)
    (folder / "chat_template.jinja").unlink()
    result = lmflow_cli(
        "export", "--model", folder, "--format", "ollama", "--type", "q8_0", *PRE, "--output", tmp_path / "out"
    )
    assert result.status == 2
    assert "has no chat template" in result.stderr
    assert not (tmp_path / "out").exists()


# --- LLaMA's original layout ------------------------------------------------------------------------------------------


def _original_logits(weights: dict[str, torch.Tensor], params: dict[str, Any], ids: list[int]) -> torch.Tensor:
    """Compute a LLaMA as its original code does: pairs of neighbours are rotated, as complex numbers."""
    heads, kv_heads = params["n_heads"], params["n_kv_heads"]
    size = params["dim"] // heads
    frequencies = 1.0 / params["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(len(ids)).float(), frequencies)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * weights[f"{name}.weight"]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2)

    x = weights["tok_embeddings.weight"][ids]
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    for layer in range(params["n_layers"]):
        stem = f"layers.{layer}"
        h = norm(x, f"{stem}.attention_norm")
        q, k, v = (h @ weights[f"{stem}.attention.w{part}.weight"].T for part in "qkv")
        q, k = rotate(q.view(len(ids), heads, size)), rotate(k.view(len(ids), kv_heads, size))
        k, v = (t.view(len(ids), kv_heads, size).repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / size**0.5 + mask
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
        x = x + mixed @ weights[f"{stem}.attention.wo.weight"].T
        h = norm(x, f"{stem}.ffn_norm")
        w1, w2, w3 = (weights[f"{stem}.feed_forward.w{part}.weight"] for part in (1, 2, 3))
        x = x + (torch.nn.functional.silu(h @ w1.T) * (h @ w3.T)) @ w2.T
    return norm(x, "norm") @ weights["output.weight"].T


def test_a_consolidated_file_is_the_model_in_llamas_layout(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli
) -> None:
    result = lmflow_cli("export", "--model", model_folder("llama"), "--format", "pt", "--output", tmp_path / "pt")
    assert result.status == 0, result.stderr
    weights = torch.load(tmp_path / "pt" / "consolidated.00.pth", weights_only=True)
    params = json.loads((tmp_path / "pt" / "params.json").read_text())
    assert (tmp_path / "pt" / "tokenizer.model").is_file()
    ids = [1, 40, 50, 60, 70, 80]
    network = AutoModelForCausalLM.from_pretrained(model_folder("llama"), dtype=torch.float32)
    with torch.no_grad():
        expected = network(input_ids=torch.tensor([ids])).logits[0]
        found = _original_logits(weights, params, ids)
    assert torch.allclose(found, expected, atol=1e-4)


def test_other_architectures_have_no_place_in_llamas_layout(
    model_folder: Models, tmp_path: Path, lmflow_cli: Cli
) -> None:
    result = lmflow_cli("export", "--model", model_folder("qwen3"), "--format", "pt", "--output", tmp_path / "pt")
    assert result.status == 2
    assert "Qwen3ForCausalLM has no form in LLaMA's layout" in result.stderr
    result = lmflow_cli("export", "--model", model_folder("llama-bias"), "--format", "pt", "--output", tmp_path / "pt")
    assert result.status == 2
    assert ".bias has no place in LLaMA's layout" in result.stderr
