"""Quantisation against MLX's own, and the folder against transformers; mlx-lm itself needs no test to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3TextConfig, LlamaConfig

from lmflow_contrib_mlx.affine import quantised
from lmflow_contrib_mlx.exporter import MlxExporter, _rotary
from lmflow_contrib_mlx.options import MlxOptions
from lmflow_core.api import ModelSettings, RequestError
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_transformers.api import CausalModel, CausalModelLoader

Cli = Callable[..., Any]
_IDS = torch.arange(3, 60)[None]


def _matrix(dtype: torch.dtype) -> torch.Tensor:
    """Rows of all kinds: random, far from zero on either side, constant, zero, tiny, with one large number."""
    rows = torch.randn(12, 256, generator=torch.Generator().manual_seed(0))
    rows[1] += 9.0
    rows[2] -= 9.0
    rows[3], rows[4], rows[5] = 0.5, 0.0, -0.25
    rows[6] *= 1e-6
    rows[7, 17] = 1000.0
    rows[8] = rows[8].abs()
    rows[9] = -rows[9].abs()
    return rows.to(dtype)


def _restored(weight: torch.Tensor, scales: torch.Tensor, biases: torch.Tensor, bits: int) -> torch.Tensor:
    """What packed weights mean, number by number."""
    numbers = [
        [word >> shift & (2**bits - 1) for word in row for shift in range(0, 32, bits)] for row in weight.tolist()
    ]
    groups = torch.tensor(numbers, dtype=torch.float32).view(*scales.shape, -1)
    return (groups * scales.float()[..., None] + biases.float()[..., None]).flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_bit_is_mlxs(bits: int, group: int, dtype: torch.dtype) -> None:
    mx = pytest.importorskip("mlx.core", reason="the reference is MLX")
    np = pytest.importorskip("numpy", reason="arrays of MLX become tensors through it")
    matrix = _matrix(dtype)
    ours = quantised(matrix, bits, group)
    theirs = mx.quantize(mx.array(matrix.float().numpy()).astype(getattr(mx, str(dtype)[6:])), group, bits)
    for mine, other in zip((ours.weight, ours.scales, ours.biases), theirs, strict=True):
        plain = mine.to(torch.int64) if mine.dtype == torch.uint32 else mine.float()
        kind = mx.int64 if mine.dtype == torch.uint32 else mx.float32
        assert torch.equal(plain, torch.from_numpy(np.array(other.astype(kind))))
    weight, *fine = theirs
    restored = torch.from_numpy(
        np.array(mx.dequantize(weight, *(part.astype(mx.float32) for part in fine), group, bits))
    )
    torch.testing.assert_close(_restored(ours.weight, ours.scales, ours.biases, bits), restored, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_restored_is_near(bits: int) -> None:
    matrix = _matrix(torch.float32)
    found = quantised(matrix, bits, 64)
    groups = matrix.view(12, -1, 64)
    # Half a step in the middle; the scale is moved so that zero is hit, by which the far end may lose half a step.
    step = (groups.amax(-1) - groups.amin(-1)) / (2**bits - 1)
    error = (_restored(found.weight, found.scales, found.biases, bits) - matrix).abs().view(12, -1, 64).amax(-1)
    assert (error <= 1.1 * step + 1e-6).all()
    assert found.weight.dtype == torch.uint32
    assert found.weight.shape == (12, 256 * bits // 32)


def test_large_matrices_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = _matrix(torch.float32)
    whole = quantised(matrix, 4, 64)
    monkeypatch.setattr("lmflow_contrib_mlx.affine._AT_A_TIME", 256 * 5)
    parts = quantised(matrix, 4, 64)
    for name in ("weight", "scales", "biases"):
        assert torch.equal(getattr(whole, name).view(torch.int32), getattr(parts, name).view(torch.int32))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {"hidden_size": 128, "intermediate_size": 160, "initializer_range": 0.1, "tie_word_embeddings": False}
    rope = {"rope_type": "default", "rope_theta": 5e5}
    return make_tiny_model(tmp_path_factory.mktemp("models") / "m", rope_parameters=rope, **shape)


def _exported(lmflow_cli: Cli, model: Path, output: Path, *flags: object) -> dict[str, Any]:
    told = lmflow_cli("export", "--model", model, "--format", "mlx", "--output", output, *flags)
    assert told.status == 0, told.stderr
    with safe_open(output / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "mlx"}
    config: dict[str, Any] = json.loads((output / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["rope_theta"]) == ("llama", 5e5)
    index = json.loads((output / "model.safetensors.index.json").read_text(encoding="utf-8"))
    held = load_file(output / "model.safetensors")
    assert index["weight_map"] == dict.fromkeys(sorted(held), "model.safetensors")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in held.values())
    parameters = AutoModelForCausalLM.from_pretrained(model).num_parameters()
    assert index["metadata"]["total_parameters"] == parameters
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {f.name for f in output.iterdir()}
    return config


@torch.no_grad()
def _logits(network: Any) -> torch.Tensor:
    logits: torch.Tensor = network.eval()(input_ids=_IDS).logits
    return logits


def test_not_quantised_it_is_the_model(lmflow_cli: Cli, model: Path, tmp_path: Path) -> None:
    config = _exported(lmflow_cli, model, tmp_path / "x")
    assert "quantization" not in config
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tmp_path / "x", model))
    assert torch.equal(_logits(ours), _logits(theirs))


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_it_means_what_mlx_makes_of_it(bits: int, lmflow_cli: Cli, model: Path, tmp_path: Path) -> None:
    config = _exported(lmflow_cli, model, tmp_path / "x", "--mlx-bits", bits, "--dtype", "bfloat16")
    assert config["quantization"] == config["quantization_config"] == {
        "group_size": 64, "bits": bits, "mode": "affine",
    }  # fmt: skip
    held = load_file(tmp_path / "x" / "model.safetensors")
    original = AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16").state_dict()
    for name, tensor in original.items():
        layer = name.removesuffix(".weight")
        # The width of what goes into down_proj, 160, is no multiple of 64.
        if "norm" in name or "down_proj" in name:
            assert torch.equal(held.pop(name), tensor)
            continue
        found = [held.pop(part) for part in (name, f"{layer}.scales", f"{layer}.biases")]
        assert {part.dtype for part in found[1:]} == {torch.bfloat16}
        step = found[1].float().abs().repeat_interleave(64, dim=1)
        assert ((_restored(*found, bits) - tensor.float()).abs() <= 1.1 * step + 0.01).all(), name
    assert held == {}


def test_mlx_computes_with_the_file(lmflow_cli: Cli, model: Path, tmp_path: Path) -> None:
    """The head on the embeddings of all tokens, from the file alone."""
    mx = pytest.importorskip("mlx.core", reason="the reference is MLX")
    np = pytest.importorskip("numpy", reason="arrays of MLX become tensors through it")
    _exported(lmflow_cli, model, tmp_path / "x", "--mlx-bits", 8)
    held = mx.load(str(tmp_path / "x" / "model.safetensors"))
    embedded = mx.dequantize(*(held[f"model.embed_tokens.{part}"] for part in ("weight", "scales", "biases")), 64, 8)
    head = [held[f"lm_head.{part}"] for part in ("weight", "scales", "biases")]
    ours = np.array(mx.quantized_matmul(embedded, *head, group_size=64, bits=8))
    network = AutoModelForCausalLM.from_pretrained(model)
    theirs = (network.model.embed_tokens.weight @ network.lm_head.weight.T).detach().numpy()
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_an_adapter_is_merged(lmflow_cli: Cli, model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="makes the adapter")
    pytest.importorskip("lmflow_lora", reason="puts the adapter on")
    network = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear"),
    )
    network.save_pretrained(tmp_path / "adapter")
    _exported(lmflow_cli, model, tmp_path / "x", "--adapter", tmp_path / "adapter")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "x")
    torch.testing.assert_close(_logits(saved), _logits(network), atol=1e-3, rtol=1e-3)


def test_several_files_stay_several(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _open(model)
    save = opened.network.save_pretrained
    monkeypatch.setattr(
        opened.network, "save_pretrained", lambda folder, **rest: save(folder, max_shard_size="300KB", **rest)
    )
    report = MlxExporter(MlxOptions(mlx_bits=4)).export(opened, tmp_path, None)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    files = sorted(file.name for file in tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1
    assert {*report.files} == {file.name for file in tmp_path.iterdir()}
    for file in files:
        assert {name for name, where in index["weight_map"].items() if where == file} == {*load_file(tmp_path / file)}


def _open(folder: Path) -> CausalModel:
    opened = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    opened.load()
    return opened


def test_rotary_parameters_stand_under_their_earlier_names_too() -> None:
    def added(config: Any) -> dict[str, Any]:
        return _rotary(config.to_dict())

    assert added(LlamaConfig(rope_parameters={"rope_type": "default", "rope_theta": 7.0})) == {"rope_theta": 7.0}
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}
    assert added(LlamaConfig(rope_parameters=linear)) == {"rope_theta": 7.0, "rope_scaling": linear}
    assert added(Gemma3TextConfig()) == {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    assert added(Gemma3Config()) == {}
    assert _rotary({"model_type": "gpt2"}) == {}


def test_what_cannot_be_is_told(lmflow_cli: Cli, model: Path, tmp_path: Path) -> None:
    for flags, part in (
        (("--mlx-bits", 3), "--mlx-bits must be 4 or 8, not 3"),
        (("--mlx-group-size", 48), "--mlx-group-size must be 32, 64 or 128, not 48"),
    ):
        told = lmflow_cli("export", "--model", model, "--format", "mlx", "--output", tmp_path / "x", *flags)
        assert told.status == 2
        assert part in told.stderr
    narrow = _open(make_tiny_model(tmp_path / "narrow"))
    (tmp_path / "y").mkdir()
    with pytest.raises(RequestError, match=r"^--mlx-group-size 128: no layer of .* has such groups"):
        MlxExporter(MlxOptions(mlx_bits=4, mlx_group_size=128)).export(narrow, tmp_path / "y", None)
