"""The memory that is planned of a model that sees: its parameters are those it has, and those of parts that train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]
_FLAGS = ("--device", "cpu", "--max-length", 64, "--json")


def _plan(cli: Cli, *flags: object) -> dict[str, Any]:
    result = cli("doctor", "--plan", "--model", *flags, *_FLAGS)
    assert result.status == 0, result.stderr
    plan: dict[str, Any] = result.json()
    return plan


@pytest.mark.parametrize(
    ("family", "parts", "trained"),
    [
        ("llava", (), ("model.language_model", "model.multi_modal_projector", "lm_head")),
        ("idefics3", ("--train-parts", "projector"), ("model.connector",)),
        ("qwen2_vl", ("--tuner", "full"), ("model.language_model", "model.visual.merger", "lm_head")),
        ("gemma3", ("--train-parts", "language"), ("model.language_model", "lm_head")),
    ],
)
def test_parts_that_train_are_planned(
    family: str,
    parts: tuple[object, ...],
    trained: tuple[str, ...],
    seeing_model: Callable[[str], Path],
    lmflow_cli: Cli,
) -> None:
    folder = seeing_model(family)
    plan = _plan(lmflow_cli, folder, *parts)
    sizes = {name: p.numel() for name, p in AutoModelForImageTextToText.from_pretrained(folder).named_parameters()}
    assert plan["parameters"] == sum(sizes.values())
    learned = sum(size for name, size in sizes.items() if name.startswith(trained))
    assert plan["trained"] == learned
    assert any("an image counts as the tokens" in each for each in plan["assumptions"])


@pytest.mark.usefixtures("other_plugins")
def test_adapters_are_planned_as_they_train(
    seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path, lmflow_cli: Cli
) -> None:
    folder, rows = seeing_model("llava"), Path(photos[0]).with_name("one.jsonl")
    asked = [{"type": "image", "image": photos[0]}, {"type": "text", "text": "What?"}]
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": "the capital"}]
    rows.write_text(json.dumps({"messages": messages}) + "\n", encoding="utf-8")
    flags = ("--tuner", "lora", "--lora-r", 3, "--train-parts", "language")
    output, data = tmp_path / "out", ("--dataset", rows, "--template", "chatml", "--device", "cpu")
    result = lmflow_cli("finetune", "--model", folder, *data, *flags, "--output", output)
    assert result.status == 0, result.stderr
    assert _plan(lmflow_cli, folder, *flags)["trained"] == sum(
        weight.numel() for weight in load_file(output / "adapter_model.safetensors").values()
    )


def test_a_tower_that_trains_is_refused(seeing_model: Callable[[str], Path], lmflow_cli: Cli) -> None:
    result = lmflow_cli(
        "doctor", "--plan", "--model", seeing_model("llava"), "--train-parts", "vision,language", *_FLAGS
    )
    assert result.status == 2
    assert "--train-parts vision: a tower that trains keeps more" in result.stderr
