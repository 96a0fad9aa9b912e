"""Questions to whatever can be opened: an adapter, scaled positions and a GGUF file, as transformers finds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model

Cli = Callable[..., CliResult]
_ROWS = [
    {"q": "What is the capital of France?", "c": ["Paris", "the Seine", "a lazy dog"], "right": 0},
    {"q": "Who does not mind at all?", "c": ["the brown fox", "the dog", "its weights"], "right": 1},
]
_TASK = {
    "name": "choose",
    "kind": "multiple-choice",
    "data": "rows.jsonl",
    "prompt": "Question: {q}\nAnswer:",
    "choices": "c",
    "answer": "right",
    "metrics": ["acc"],
}


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS), encoding="utf-8")
    file = tmp_path / "choose.json"
    file.write_text(json.dumps(_TASK), encoding="utf-8")
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model", sharpness=8, tie_word_embeddings=False)


def _found(lmflow_cli: Cli, task: Path, *flags: object) -> list[float]:
    """Return the log-likelihoods of all choices that the benchmark kept, and check its figure against them."""
    kept = task.with_suffix(".samples")
    files = ("--task-file", task, "--samples-file", kept, "--json")
    result = lmflow_cli("evaluate", "--benchmark", "tasks", "--device", "cpu", *files, *flags)
    assert result.status == 0, result.stderr
    samples = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    best = [max(range(3), key=lambda place, sample=sample: sample["found"][place][0]) for sample in samples]
    right = [place == row["right"] for place, row in zip(best, _ROWS, strict=True)]
    assert result.json()["metrics"]["choose acc"] == sum(right) / len(right)
    return [found[0] for sample in samples for found in sample["found"]]


def _expected(network: torch.nn.Module, folder: Path) -> list[float]:
    """Return what a network of transformers finds, one choice at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    likelihoods = []
    for row in _ROWS:
        context = tokenizer(f"Question: {row['q']}\nAnswer:").input_ids
        for choice in row["c"]:
            ids = [*context, *tokenizer(f" {choice}").input_ids]
            with torch.no_grad():
                logs = network(torch.tensor([ids])).logits[0].log_softmax(-1)
            likelihoods.append(sum(logs[at - 1, ids[at]].item() for at in range(len(context), len(ids))))
    return likelihoods


def test_an_adapter(model: Path, task: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    plain = _expected(network, model)
    torch.manual_seed(1)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    found = _found(lmflow_cli, task, "--model", model, "--adapter", tmp_path / "adapter")
    assert found == pytest.approx(_expected(adapted.eval(), model), abs=1e-4)
    assert found != pytest.approx(plain, abs=1e-2)


def test_scaled_positions(model: Path, task: Path, lmflow_cli: Cli) -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    scaled = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, rope_parameters=rope)
    found = _found(lmflow_cli, task, "--model", model, "--position-scaling", "linear", "--position-scaling-factor", 4)
    assert found == pytest.approx(_expected(scaled, model), abs=1e-4)
    assert found != pytest.approx(_found(lmflow_cli, task, "--model", model), abs=1e-3)


def test_a_gguf_file(model: Path, task: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    pytest.importorskip("llama_cpp", reason="the file is run by llama.cpp")
    file = tmp_path / "model.gguf"
    flags = ("--format", "gguf", "--type", "F32", "--pre-tokenizer", "gpt-2")
    assert lmflow_cli("export", "--model", model, *flags, "--output", file).status == 0
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert _found(lmflow_cli, task, "--model", file) == pytest.approx(_expected(network, model), abs=1e-3)
