"""The model card beside every result, read as a hub reads it, and what it tells, done."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]
ROWS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you"}]}] * 4
TUNERS = {"full": "transformers", "lisa": "transformers", "lora": "peft", "draft": "transformers"}


@pytest.fixture
def data(write_rows: Callable[..., Path]) -> Path:
    return write_rows(ROWS, "a: b\n---.jsonl")


def _finetuned(cli: Cli, model: Path, data: Path, output: Path, *flags: object) -> ModelCard:
    line = ("--model", model, "--dataset", data, "--output", output, "--max-steps", "2", "--logging-steps", "1")
    result = cli("finetune", *line, "--device", "cpu", *flags)
    assert result.status == 0, result.stderr
    return ModelCard.load(output / "README.md")


def _run_python_block(card: ModelCard, folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    check = "\nassert model.generate(**tokenizer('Hi', return_tensors='pt'), max_new_tokens=1).shape[0] == 1\n"
    finished = subprocess.run([sys.executable, "-c", code + check], cwd=folder, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("tuner", TUNERS)
def test_every_result_has_a_card_of_its_own(
    lmflow_cli: Cli, tiny_model: Path, data: Path, tmp_path: Path, tuner: str
) -> None:
    output = tmp_path / "out"
    flags = ("--lisa-activated-layers", "1") if tuner == "lisa" else ()
    card = _finetuned(lmflow_cli, tiny_model, data, output, "--tuner", tuner, *flags)
    assert card.data.to_dict() == {
        "library_name": TUNERS[tuner],
        "pipeline_tag": "text-generation",
        "tags": ["lmflow", tuner, "sft"],
    }
    record = json.loads((output / "run.json").read_text())
    assert "README.md" in record["files"]
    assert "* data: `a: b\\n---.jsonl` (4 examples," in card.text
    assert f"* tokens: {record['tokens']:,}\n" in card.text
    first, last = record["losses"]
    assert f"{first[1]:.4f} at step 1, then {last[1]:.4f} at step 2" in card.text
    assert str(tmp_path) not in card.content
    assert "More Information Needed" not in card.content


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_the_code_of_a_card_loads_the_result(
    lmflow_cli: Cli, tiny_model: Path, data: Path, tmp_path: Path, tuner: str
) -> None:
    card = _finetuned(lmflow_cli, tiny_model, data, tmp_path / "out", "--tuner", tuner)
    _run_python_block(card, tmp_path / "out")


def test_a_card_is_replaced_with_its_result_alone(
    lmflow_cli: Cli, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _finetuned(lmflow_cli, tiny_model, data, output)
    (output / "README.md").write_text("mine")
    line = ("--model", tiny_model, "--dataset", data, "--output", output, "--max-steps", "1")
    assert lmflow_cli("finetune", *line).status == 2
    assert (output / "README.md").read_text() == "mine"
    card = _finetuned(lmflow_cli, tiny_model, data, output, "--tuner", "lora", "--overwrite")
    assert card.data.library_name == "peft"


def test_what_is_merged_and_exported_tells_of_the_training(
    lmflow_cli: Cli, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    _finetuned(lmflow_cli, tiny_model, data, tmp_path / "lora", "--tuner", "lora")
    _finetuned(lmflow_cli, tiny_model, data, tmp_path / "full")
    lines = {
        "merged": ("merge", "--model", tiny_model, "--adapter", tmp_path / "lora"),
        "finetuned": ("export", "--model", tmp_path / "full", "--format", "hf"),
        "exported": ("export", "--model", tiny_model),
    }
    openings = {
        "merged": "`model` with an adapter merged into it by LMFlow.",
        "finetuned": "This is a whole model, trained with LMFlow from `model`.",
        "exported": "This is `model`, written by LMFlow.",
    }
    for made, line in lines.items():
        output = tmp_path / made
        report = lmflow_cli(*line, "--output", output, "--device", "cpu", "--json").json()
        written = {file.name: file.stat().st_size for file in sorted(output.iterdir())}
        assert list(report["files"].items()) == list(written.items())
        card = ModelCard.load(output / "README.md")
        assert openings[made] in card.text
        assert card.data.library_name == "transformers"
        assert ("## How it was trained" in card.text) == (made != "exported")
        assert str(tmp_path) not in card.content
        _run_python_block(card, output)


def test_an_export_that_no_library_loads_has_none(lmflow_cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    line = ("export", "--model", tiny_model, "--format", "gguf", "--pre-tokenizer", "smollm", "--output")
    result = lmflow_cli(*line, tmp_path / "out", "--device", "cpu")
    assert result.status == 0, result.stderr
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".gguf"}


_PAIRS = [{"instruction": f"say {n}", "chosen": "yes", "rejected": "no no"} for n in range(4)]
_PROMPTS = [{"prompt": f"say {n}"} for n in range(4)]
_ALIGNED = {
    "dpo": (_PAIRS, (), "(4 pairs,"),
    "reward": (_PAIRS, (), "(4 pairs,"),
    "raft": (
        _PROMPTS,
        ("--reward", "regex,length=0.1", "--regex-pattern", "x", "--raft-max-new-tokens", "4"),
        "* reward: `regex`, `length` times `0.1`\n",
    ),
}


@pytest.mark.parametrize(
    ("objective", "tuner"), [("dpo", "lora"), ("reward", "full"), ("reward", "lora"), ("raft", "full")]
)
def test_a_card_of_alignment_tells_its_objective_and_what_it_learned_from(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path, objective: str, tuner: str
) -> None:
    rows, flags, told = _ALIGNED[objective]
    output = tmp_path / "out"
    chosen = ("--objective", objective, "--tuner", tuner, *flags)
    card = _finetuned(lmflow_cli, tiny_model, write_rows(rows), output, *chosen)
    assert card.data.to_dict()["tags"] == ["lmflow", tuner, objective]
    assert f"* objective: `{objective}`\n" in card.text
    assert told in card.text
    if objective != "reward":
        return
    assert card.data.to_dict()["pipeline_tag"] == "text-classification"
    assert "lmflow chat" not in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert "ForSequenceClassification.from_pretrained(" in code
    check = "\nassert model(**tokenizer(['Hi', 'Hi you'], return_tensors='pt', padding=True)).logits.shape == (2, 1)\n"
    finished = subprocess.run([sys.executable, "-c", code + check], cwd=output, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
