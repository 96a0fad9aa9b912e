"""``--attention`` in every command that runs a model, with the plugins that read its data and sample its tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.testing.fixtures import CliResult
from lmflow_flash_attention import attention, cpu
from lmflow_transformers.api import AttentionInputs


def test_every_command_that_runs_a_model_attends_as_it_is_told(
    lmflow_cli: Callable[..., CliResult], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def watched(inputs: AttentionInputs) -> torch.Tensor:
        passes.append(inputs.query.shape[2])
        return cpu.cpu_attention(inputs)

    monkeypatch.setattr(attention, "cpu_attention", watched)
    data, prompts = tmp_path / "data.jsonl", tmp_path / "prompts.txt"
    data.write_text('{"text": "the quick brown fox jumps"}\n', encoding="utf-8")
    prompts.write_text("the lazy dog\nfox and dog and fox\n", encoding="utf-8")
    commands: dict[str, tuple[Any, ...]] = {
        "evaluate": ("evaluate", "--dataset", data),
        "generate": ("generate", "--prompt", "the fox", "--raw", "--max-new-tokens", 8),
        "prompts": ("generate", "--prompts", prompts, "--raw", "--max-new-tokens", 8, "--overwrite"),
        "drafts": ("generate", "--prompt", "dog " * 9, "--raw", "--max-new-tokens", 8, "--decoder", "prompt-lookup"),
    }

    def told(name: str, *how: Any) -> Any:
        passes.clear()
        output = ("--output", tmp_path / "answers.jsonl") if name == "prompts" else ()
        done = lmflow_cli(*commands[name], *output, "--model", tiny_model, "--device", "cpu", *how, "--json")
        assert done.status == 0, done.stderr
        if name == "prompts":
            rows = map(json.loads, output[1].read_text(encoding="utf-8").splitlines())
            return [row["answer"] for row in rows]
        return done.json().get("text", done.json().get("nll_per_token"))

    for name in commands:
        plain = told(name)
        assert passes == []
        assert told(name, "--attention", "sdpa") == (pytest.approx(plain, rel=1e-5) if name == "evaluate" else plain)
        assert passes == []
        assert told(name, "--attention", "flash") == (pytest.approx(plain, rel=1e-5) if name == "evaluate" else plain)
        assert passes != []


def test_an_attention_that_does_not_fit_the_decoder_is_told(
    lmflow_cli: Callable[..., CliResult], tiny_model: Path
) -> None:
    asked = ("generate", "--model", tiny_model, "--prompt", "hello", "--device", "cpu", "--attention")
    streaming = lmflow_cli(*asked, "flash", "--decoder", "streaming")
    assert streaming.status == 2
    assert "--decoder streaming masks what it dropped, and --attention takes no attention mask" in streaming.stderr
