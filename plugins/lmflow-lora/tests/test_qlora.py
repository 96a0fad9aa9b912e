"""QLoRA: what trains beside quantised weights is what plain transformers and peft make of the same numbers."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lmflow_core.api import (
    IGNORE,
    Destination,
    ModelError,
    ModelSettings,
    Quantization,
    RequestError,
    TrainingSettings,
)
from lmflow_core.models.opening import open_model
from lmflow_core.options import build
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.tensors import bytes_held, differing, state_of
from lmflow_lora.options import LoraOptions, QloraOptions
from lmflow_lora.quantised import QloraTuner
from lmflow_lora.tuner import LoraTuner
from lmflow_transformers.api import CausalModel, CausalModelLoader, FullTuner, collate, summed_cross_entropy
from lmflow_transformers.training.sft import SftObjective

_IDS = torch.arange(3, 40)[None]
_ROWS = [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 11)]
_PLAIN: dict[str, tuple[dict[str, Any], BitsAndBytesConfig]] = {
    "nf4": (
        {"qlora_double_quantization": False},
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    ),
    "nf4, doubly": (
        {},
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.float32,
            bnb_4bit_use_double_quant=True,
        ),
    ),
    "fp4": (
        {"qlora_type": "fp4", "qlora_double_quantization": False},
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.float32),
    ),
    "int8": ({"qlora_type": "int8"}, BitsAndBytesConfig(load_in_8bit=True)),
}


def _tuner(**options: Any) -> QloraTuner:
    return QloraTuner(QloraOptions(**{"lora_r": 4, "lora_dropout": 0.0, **options}))


def _settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"lr": 1e-2, "batch_size": 4, "epochs": 2, "warmup_ratio": 0.0, **changes})


def _train(folder: Path, checkpoints: Path, **options: Any) -> tuple[CausalModel, QloraTuner]:
    tuner = _tuner(**options)
    job = make_job(folder, checkpoints, _settings(), _ROWS, tuner=tuner)
    SftObjective().train(job)
    return job.model, tuner


def _saved(model: CausalModel, tuner: LoraTuner, folder: Path) -> Path:
    folder.mkdir()
    tuner.save(model, Destination(folder))
    return folder


@torch.no_grad()
def _logits(network: Any) -> torch.Tensor:
    logits: torch.Tensor = network.eval()(input_ids=_IDS).logits
    return logits


@pytest.mark.parametrize("name", _PLAIN)
def test_what_was_trained_is_the_saved_adapter_on_what_plain_transformers_quantises(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    options, config = _PLAIN[name]
    model, tuner = _train(tiny_model, tmp_path / "checkpoints", **options)
    trained = _logits(model.network)
    plain = AutoModelForCausalLM.from_pretrained(
        tiny_model, quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
    )
    for module in plain.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    assert not torch.allclose(trained, _logits(plain), atol=1e-2)
    adapted = PeftModel.from_pretrained(plain, _saved(model, tuner, tmp_path / "adapter"))
    torch.testing.assert_close(_logits(adapted), trained, atol=1e-4, rtol=1e-4)


def test_the_adapter_is_merged_into_the_model_as_it_is(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Callable[..., CliResult]
) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints")
    adapter = _saved(model, tuner, tmp_path / "adapter")
    line = ("merge", "--model", tiny_model, "--adapter", adapter, "--output", tmp_path / "merged")
    assert lmflow_cli(*line).status == 0
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(_logits(merged), _logits(plain), atol=1e-5, rtol=1e-5)
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    assert {tensor.dtype for tensor in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.float32}


def test_the_adapter_opens_on_the_model_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints")
    adapter = _saved(model, tuner, tmp_path / "adapter")
    opened: Any = open_model(ModelSettings(model=str(adapter), device="cpu"), Catalogue.discover()).load()
    assert not any(isinstance(module, Linear4bit | Linear8bitLt) for module in opened.network.modules())
    kept = {name.replace(".base_layer", ""): tensor for name, tensor in opened.base.state_dict().items()}
    original = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in original.items())


def _dequantised(network: Any) -> Any:
    """Return a network with plain linear layers, of the numbers that the quantised weights stand for."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear4bit):
                linear = torch.nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
                linear.weight.data = dequantize_4bit(child.weight.data, child.weight.quant_state).float()
                if child.bias is not None:
                    linear.bias.data = child.bias.data
                setattr(module, name, linear)
    return plain


def _open(folder: Path, quantization: Quantization | None) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.accept(replace(model.plan, quantization=quantization))
    model.load()
    return model


@pytest.mark.parametrize("double", [False, True])
def test_loss_and_gradients_are_those_of_plain_layers_with_the_same_numbers(double: bool, tiny_model: Path) -> None:
    model = _open(tiny_model, Quantization("nf4", double))
    plain = _open(tiny_model, None)
    plain.network = _dequantised(model.network)
    # A pass outside of training, as of the trial of attention, must leave weights that gradients go through.
    torch.testing.assert_close(_logits(model.network), _logits(plain.network), atol=1e-4, rtol=1e-4)
    gradients, losses = [], []
    for each in (model, plain):
        LoraTuner(LoraOptions(lora_dropout=0.0)).prepare(each, 0)
        # The B factors begin at zero, behind which A would have no gradient.
        for name, parameter in each.network.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.02)
        _logits(each.network)
        each.network.train()
        loss = summed_cross_entropy(each.base, collate(_ROWS[:3], isolated=False), 4)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad for name, p in each.network.named_parameters() if p.requires_grad})
    torch.testing.assert_close(losses[0], losses[1], atol=1e-4, rtol=1e-5)
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-3)


def test_recomputing_activations_learns_the_same(tiny_model: Path, tmp_path: Path) -> None:
    networks = []
    for checkpointing in (False, True):
        settings = _settings(gradient_checkpointing=checkpointing)
        job = make_job(tiny_model, tmp_path / f"checkpoints-{checkpointing}", settings, _ROWS, tuner=_tuner())
        SftObjective().train(job)
        networks.append(job.model.network)
    torch.testing.assert_close(_logits(networks[0]), _logits(networks[1]), atol=1e-4, rtol=1e-4)


def test_an_adapter_goes_on_training_beside_quantised_weights(
    tiny_model: Path, tmp_path: Path, write_rows: Callable[..., Path], lmflow_cli: Callable[..., CliResult]
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    rows = write_rows([{"text": "hello world, this is a text"}, {"text": "another one"}])
    first, second = tmp_path / "first", tmp_path / "second"
    line = ("finetune", "--dataset", rows, "--tuner", "qlora", "--lr", "1e-2", "--device", "cpu")
    assert lmflow_cli(*line, "--model", tiny_model, "--output", first).status == 0
    found = lmflow_cli(*line, "--model", first, "--output", second)
    assert found.status == 0, found.stderr
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
    assert set(differing(one, other)) == one.keys() == other.keys()
    assert "bitsandbytes" in json.loads((second / "run.json").read_text())["versions"]["libraries"]
    assert lmflow_cli("evaluate", "--model", second, "--dataset", rows, "--device", "cpu").status == 0


@pytest.mark.parametrize("options", [options for options, _ in _PLAIN.values()], ids=list(_PLAIN))
def test_a_resumed_run_is_the_uninterrupted_one(options: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    states = []
    for steps in ((6,), (3, 6)):
        for until in steps:
            settings = _settings(max_steps=until, save_steps=3, lr_scheduler_type="constant")
            job = make_job(tiny_model, tmp_path / str(len(steps)), settings, _ROWS, tuner=_tuner(**options))
            SftObjective().train(job)
        states.append(state_of(job.model.network))
    assert differing(*states) == []


def test_quantised_weights_are_an_eighth_of_the_linear_layers(tiny_model: Path) -> None:
    networks = [_open(tiny_model, asked).network for asked in (None, Quantization("nf4", double=True))]
    linear = [
        sum(m.weight.nbytes for m in n.model.layers.modules() if isinstance(m, torch.nn.Linear)) for n in networks
    ]
    assert linear[1] * 8 == linear[0]
    factors = bytes_held(networks[1]) - (bytes_held(networks[0]) - linear[0] + linear[1])
    # One byte for each block of 64 numbers, and what each layer's factors are read back with.
    assert 0 <= factors - linear[0] // 4 // 64 <= 4096 * sum(isinstance(m, Linear4bit) for m in networks[1].modules())
    assert networks[1].lm_head.weight.dtype == networks[1].get_input_embeddings().weight.dtype == torch.float32


def test_wrong_requests_are_clear(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="--lora-pissa takes from the weights, which are quantised"):
        build(QloraOptions, {"lora_pissa": True})
    model = CausalModelLoader().open(str(tiny_model), ModelSettings(model=str(tiny_model), device="cpu"))
    plan = _tuner().plan(model.plan)
    model.accept(plan)
    with pytest.raises(ModelError, match=r"has quantised weights \(nf4\), which cannot train: --tuner qlora"):
        FullTuner().check(model)
    model.adapter = tiny_model
    with pytest.raises(ModelError, match=r"^--tuner qlora on the adapter in"):
        _tuner().check(model)
    model.arguments["gguf_file"] = "model.gguf"
    with pytest.raises(RequestError, match="weights from a GGUF file cannot be quantised as nf4: lmflow export"):
        model.accept(plan)
    del model.arguments["gguf_file"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(RequestError, match=r"need bitsandbytes, which is not installed: .*lmflow-transformers\[quant"):
        model.accept(plan)


def test_weights_that_are_quantised_already_do_not_train(tiny_model: Path) -> None:
    model = _open(tiny_model, Quantization("int8"))
    with pytest.raises(ModelError, match=r"has quantised weights \(model\.layers\.0.*weight\), which cannot train"):
        FullTuner().prepare(model, 0)


@pytest.mark.slow
def test_a_real_model_takes_a_third_of_the_memory(smollm2_folder: Path) -> None:
    whole, quantised = (_open(smollm2_folder, asked).network for asked in (None, Quantization("nf4", double=True)))
    assert bytes_held(quantised) <= 0.35 * bytes_held(whole)
