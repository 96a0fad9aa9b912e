"""LoRA and its variants: what is saved must mean the same in plain peft, merged and in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lmflow_core.api import (
    IGNORE,
    Destination,
    EncodedExample,
    ModelError,
    ModelSettings,
    RequestError,
    TrainingSettings,
)
from lmflow_core.options import build
from lmflow_core.testing.jobs import make_job, single
from lmflow_lora.options import LoraOptions
from lmflow_lora.tuner import LoraTuner
from lmflow_transformers.export import HuggingFaceExporter
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.training.optimizers import AdamW
from lmflow_transformers.training.sft import SftObjective

_IDS = torch.arange(3, 40)[None]
_VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "one module": {"lora_target_modules": ("v_proj",)},
    "dora": {"lora_dora": True},
    "rslora": {"lora_rslora": True},
    "pissa": {"lora_pissa": True},
    "lora plus": {"lora_plus_ratio": 8.0},
}


def _open(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


def _rows() -> Sequence[EncodedExample]:
    return [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 11)]


def _train(folder: Path, checkpoints: Path, **options: Any) -> tuple[CausalModel, LoraTuner]:
    tuner = LoraTuner(LoraOptions(**{"lora_r": 4, "lora_dropout": 0.0, **options}))
    settings = TrainingSettings(lr=1e-2, batch_size=4, epochs=2, warmup_ratio=0.0)
    job = make_job(folder, checkpoints, settings, _rows(), tuner=tuner)
    SftObjective().train(job)
    return job.model, tuner


@torch.no_grad()
def _logits(network: Any) -> torch.Tensor:
    logits: torch.Tensor = network.eval()(input_ids=_IDS).logits
    return logits


@pytest.mark.parametrize("name", _VARIANTS)
def test_saved_in_plain_peft_and_merged_equal_what_was_trained(name: str, tiny_model: Path, tmp_path: Path) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints", **_VARIANTS[name])
    trained = _logits(model.network)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.allclose(trained, _logits(base), atol=1e-2)

    adapter = tmp_path / "adapter"
    adapter.mkdir()
    tuner.save(model, Destination(adapter))
    torch.testing.assert_close(_logits(PeftModel.from_pretrained(base, adapter)), trained, atol=1e-4, rtol=1e-4)

    merged = tmp_path / "merged"
    merged.mkdir()
    reopened = _open(tiny_model)
    LoraTuner().attach(reopened, adapter)
    HuggingFaceExporter().export(reopened, merged, None)
    torch.testing.assert_close(_logits(AutoModelForCausalLM.from_pretrained(merged)), trained, atol=1e-4, rtol=1e-4)


def test_the_base_weights_never_change(tiny_model: Path, tmp_path: Path) -> None:
    model, _ = _train(tiny_model, tmp_path / "checkpoints")
    original = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    kept = {
        name.replace("base_model.model.", "").replace(".base_layer", ""): tensor
        for name, tensor in model.network.state_dict().items()
        if "lora_" not in name
    }
    assert kept.keys() == original.keys()
    for name, tensor in kept.items():
        assert torch.equal(tensor, original[name]), name


def test_the_adapter_folder_holds_the_asked_for_shape(tiny_model: Path, tmp_path: Path) -> None:
    model = _open(tiny_model)
    tuner = LoraTuner(LoraOptions(lora_r=3, lora_alpha=12, lora_dropout=0.25, lora_target_modules=("q_proj", "v_proj")))
    tuner.prepare(model, 0)
    tuner.save(model, Destination(tmp_path, "{{ 'mine' }}"))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (3, 12, 0.25)
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert tuner.base_reference(tmp_path) == str(tiny_model)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 2 * 2
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {3}
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ 'mine' }}"


def test_lora_plus_trains_b_faster(tiny_model: Path) -> None:
    model = _open(tiny_model)
    tuner = LoraTuner(LoraOptions(lora_plus_ratio=16.0))
    tuner.prepare(model, 0)
    optimizer = AdamW().make(tuner.parameter_groups(model), TrainingSettings(lr=1e-3))
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    rates = {group["lr"]: {"lora_B" in names[id(p)] for p in group["params"]} for group in optimizer.param_groups}
    assert rates == {1e-3: {False}, 16e-3: {True}}


def test_an_adapter_goes_on_training(tiny_model: Path, tmp_path: Path) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    tuner.save(model, Destination(adapter))
    reopened = _open(tiny_model)
    again = LoraTuner()
    again.attach(reopened, adapter)
    again.prepare(reopened, 0)
    trainable = {name for name, parameter in reopened.network.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_wrong_requests_are_clear(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--lora-pissa cannot be combined with --lora-dora or --lora-rslora"):
        build(LoraOptions, {"lora_pissa": True, "lora_dora": True})
    with pytest.raises(RequestError, match=r"--lora-target-modules: .*nowhere"):
        LoraTuner(LoraOptions(lora_target_modules=("nowhere",))).prepare(_open(tiny_model), 0)
    model = _open(tiny_model)
    model.adapter = tmp_path
    with pytest.raises(ModelError, match=r"^--tuner lora on the adapter in .*: merge it first with lmflow merge"):
        LoraTuner().check(model)
    (tmp_path / "adapter_config.json").write_text("{}")
    LoraTuner().check(model)
    with pytest.raises(ModelError, match="adapter without weights"):
        LoraTuner().attach(model, tmp_path)


def test_an_adapter_on_the_head_trains(tiny_model: Path, tmp_path: Path) -> None:
    model, _ = _train(tiny_model, tmp_path / "checkpoints", lora_target_modules=("q_proj", "lm_head"))
    weights = model.network.state_dict().items()
    trained = {name: float(tensor.abs().max()) for name, tensor in weights if "lora_B" in name}
    assert any("lm_head" in name for name in trained)
    assert min(trained.values()) > 0


def test_the_reference_is_the_model_without_what_was_trained(tiny_model: Path, tmp_path: Path) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints")
    reference = tuner.reference(model)
    assert reference is not None
    with reference:
        torch.testing.assert_close(_logits(model.network), _logits(AutoModelForCausalLM.from_pretrained(tiny_model)))
    pissa = LoraTuner(LoraOptions(lora_pissa=True))
    reopened = _open(tiny_model)
    pissa.prepare(reopened, 0)
    assert pissa.reference(reopened) is None


def test_a_process_that_is_not_the_main_one_writes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    model, tuner = _train(tiny_model, tmp_path / "checkpoints")
    tuner.save(model, Destination(tmp_path / "nowhere", is_main=False))
    assert not (tmp_path / "nowhere").exists()
