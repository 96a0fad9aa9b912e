"""Long contexts through the command line, all plugins together: scaling, flash attention, windows, benchmarks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import ModelSettings
from lmflow_core.testing.fixtures import CliResult
from lmflow_transformers.models import CausalModelLoader

Cli = Callable[..., CliResult]
SCHEMES = ("linear", "ntk", "dynamic-ntk", "yarn", "llama3", "longrope")


def _both(folder: Path) -> tuple[Path, Path]:
    return folder / "a", folder / "b"


@pytest.mark.parametrize("name", SCHEMES)
def test_saved_reloaded_and_trained_on(
    name: str, tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox jumps over the lazy dog " * 4}] * 2)
    common = ("--dataset", data, "--max-steps", 1, "--device", "cpu")
    scaling = ("--position-scaling", name, "--target-length", 512)
    first = lmflow_cli("finetune", "--model", tiny_model, "--output", tmp_path / "a", *common, *scaling)
    assert first.status == 0, first.stderr
    second = lmflow_cli("finetune", "--model", tmp_path / "a", "--output", tmp_path / "b", *common)
    assert second.status == 0, second.stderr
    record = {"scheme": name, "factor": 2.0, "trained_length": 256}
    plain, first, second = (AutoModelForCausalLM.from_pretrained(f).config for f in (tiny_model, *_both(tmp_path)))
    assert first.rope_parameters == second.rope_parameters != plain.rope_parameters
    assert first.lmflow_position_scaling == second.lmflow_position_scaling == record
    for folder in _both(tmp_path):
        model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
        model.load()
        assert model.context_length == 512
    again = lmflow_cli("finetune", "--model", tmp_path / "a", "--output", tmp_path / "c", *common, *scaling)
    assert again.status == 2
    assert "scaled already" in again.stderr


def test_an_adapter_keeps_its_scaling(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox"}] * 2)
    scaling = ("--position-scaling", "yarn", "--position-scaling-factor", 2, "--yarn-beta-fast", 16)
    trained = lmflow_cli(
        "finetune", "--model", tiny_model, "--dataset", data, "--tuner", "lora", "--max-steps", 1,
        "--output", tmp_path / "a", *scaling,
    )  # fmt: skip
    assert trained.status == 0, trained.stderr
    merged = lmflow_cli("merge", "--model", tmp_path / "a", "--output", tmp_path / "m")
    assert merged.status == 0, merged.stderr
    parameters = json.loads((tmp_path / "m" / "config.json").read_text())["rope_parameters"]
    assert (parameters["rope_type"], parameters["factor"], parameters["beta_fast"]) == ("yarn", 2.0, 16.0)
    same = lmflow_cli("evaluate", "--model", tmp_path / "a", "--dataset", data, *scaling)
    assert same.status == 0, same.stderr
    other = lmflow_cli("evaluate", "--model", tmp_path / "a", "--dataset", data, *scaling[:-2])
    assert other.status == 2
    assert "was trained with --position-scaling yarn 2" in other.stderr


def test_training_with_flash_attention_is_training_without(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox jumps over the lazy dog"}] * 4)
    losses = []
    for attention in ("sdpa", "flash"):
        result = lmflow_cli(
            "finetune", "--model", tiny_model, "--dataset", data, "--output", tmp_path / attention, "--epochs", 2,
            "--logging-steps", 1, "--lr", 1e-2, "--attention", attention, "--device", "cpu", "--json",
        )  # fmt: skip
        assert result.status == 0, result.stderr
        losses.append([loss for _, loss in result.json()["losses"]])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_activation_offload_is_refused_on_a_cpu(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "hello world"}])
    flags = ("--model", tiny_model, "--dataset", data, "--output", tmp_path / "o", "--device", "cpu")
    result = lmflow_cli("finetune", *flags, "--activation-offload")
    assert result.status == 2
    assert "--activation-offload: on a CPU activations are in main memory already" in result.stderr
    assert not (tmp_path / "o").exists()


def test_the_perplexity_is_that_of_a_plain_loop(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox jumps over the lazy dog " * 9}, {"text": "hello world"}])
    result = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", data, "--context", 24, "--stride", 8, "--json")
    assert result.status == 0, result.stderr
    rows = lmflow_cli("data", "preview", data, "--model", tiny_model, "--json").json()
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    total, count = 0.0, 0
    for row in rows["rows"] if isinstance(rows, dict) else rows:
        ids = row["sequences"][0]["input_ids"]
        for place in range(1, len(ids)):
            # The window that scores this token: the first holds 24 tokens, each later one ends 8 further.
            end = 24 if place < 24 else 24 + 8 * math.ceil((place - 23) / 8)
            end = min(end, len(ids))
            start = max(0, end - 24)
            with torch.no_grad():
                logits = network(torch.tensor([ids[start:place]])).logits[0, -1]
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[place])))
            count += 1
    found = result.json()
    assert found["tokens"] == count
    assert found["nll_per_token"] == pytest.approx(total / count, rel=1e-5)


def test_a_stride_alone_makes_windows_of_the_models_context(
    tiny_model: Path, lmflow_cli: Cli, write_rows: Callable[..., Path]
) -> None:
    data = write_rows([{"text": "the quick brown fox jumps over the lazy dog " * 40}])
    plain = ("evaluate", "--model", tiny_model, "--dataset", data, "--json")
    alone, both, other = (
        lmflow_cli(*plain, *flags).json()
        for flags in (("--stride", 100), ("--context", 256, "--stride", 100), ("--context", 256, "--stride", 60))
    )
    assert alone == both
    assert alone != other


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stride", 256, "--dataset", "none"), "--stride 256 must be smaller than the model's context of 256"),
        (("--context", 8, "--stride", 8), "--stride must be smaller than --context"),
        (("--context", 8), "--dataset is required"),
        (("--context", 8, "--benchmark", "passkey"), "not for --benchmark"),
        (("--stride", 8, "--benchmark", "passkey"), "not for --benchmark"),
        (("--prompt-structure", "{input}", "--benchmark", "passkey"), "--benchmark passkey brings its own"),
        (("--benchmark", "passkeys"), "unknown benchmark 'passkeys'. Did you mean 'passkey'"),
    ],
)
def test_wrong_requests_are_clear(flags: tuple[object, ...], message: str, tiny_model: Path, lmflow_cli: Cli) -> None:
    result = lmflow_cli("evaluate", "--model", tiny_model, *flags)
    assert result.status == 2
    assert message in result.stderr


def test_a_benchmark_leaves_its_figures_and_a_picture(tiny_model: Path, tmp_path: Path, lmflow_cli: Cli) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "passkey.json"
    flags = ("--passkey-lengths", "180,200", "--passkey-depths", 2, "--passkey-trials", 1, "--output-file", file)
    result = lmflow_cli("evaluate", "--model", tiny_model, "--benchmark", "passkey", *flags)
    if "shortest prompt" in result.stderr:
        flags = ("--passkey-lengths", "600,700", *flags[2:])
        result = lmflow_cli("evaluate", "--model", tiny_model, "--benchmark", "passkey", *flags)
    assert result.status == 0, result.stderr
    assert "depth of the key / length (tokens)" in result.stdout
    written = json.loads(file.read_text())
    assert written["metrics"]["accuracy"] == 0.0
    assert len(written["grid"]["values"]) == 2
    assert (tmp_path / "passkey.png").read_bytes().startswith(b"\x89PNG")
