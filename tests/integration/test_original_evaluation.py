"""The original LMFlow's scripts of evaluation, line by line, on a tiny model."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_SCRIPTS = {
    script["script"]: script["line"]
    for script in json.loads((Path(__file__).parents[2] / "dev" / "lmflow_scripts.json").read_text())["scripts"]
    if script["command"] == "evaluate"
}
_WANTED = {
    "run_evaluation.sh": {"data accuracy"},
    "run_evaluation.sh, likelihood": {"data perplexity", "data nll per token"},
    "run_evaluation_with_lora.sh": {"data nll", "data nll per token"},
    "run_evaluation_accelerator.sh": {"data accuracy"},
    "run_benchmark.sh": {"gpt4_en_eval nll"},
}
_ROWS = [
    {"input": "Which one barks? (A) a cat (B) a dog", "output": "B"},
    {"input": "Which one purrs? (A) a cat (B) a dog", "output": "A"},
]


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an adapter that changes what the model finds likely."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    adapted: Any = get_peft_model(network, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def test_every_script_of_evaluation_is_tried() -> None:
    assert _SCRIPTS.keys() == _WANTED.keys()


@pytest.mark.parametrize("script", _WANTED)
def test_a_line_of_the_original_measures(
    script: str,
    tiny_model: Path,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lmflow_cli: Callable[..., Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("data"), Path("data/gpt4_en_eval")):
        folder.mkdir(exist_ok=True)
        (folder / "rows.json").write_text(json.dumps({"type": "text2text", "instances": _ROWS}), encoding="utf-8")
    stand_for = {"MODEL": str(tiny_model), "DATA": "data", "ADAPTER": str(adapter), "OUT": "out"}
    line = [stand_for.get(word, word) for word in shlex.split(_SCRIPTS[script])]
    result = lmflow_cli("evaluate", *line, "--json")
    assert result.status == 0, result.stderr
    metrics = result.json()["metrics"]
    assert metrics.keys() >= _WANTED[script]
    assert all(math.isfinite(value) for value in metrics.values())
    if "--output_dir" in line:
        assert json.loads(Path("out/evaluation.json").read_text()) == result.json()


def test_adapter_and_structure_of_a_line_count(
    tiny_model: Path, adapter: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(_ROWS), encoding="utf-8")
    plain = ("evaluate", "-m", tiny_model, "--dataset_path", data, "--metric", "nll", "--json")
    more: list[tuple[object, ...]] = [(), ("--lora_model_path", adapter), ("--prompt_structure", "Input: {input}")]
    figures = [lmflow_cli(*plain, *flags).json()["metrics"]["data nll"] for flags in more]
    assert len(set(figures)) == 3


def test_without_the_benchmark_a_structure_counts_too_and_another_benchmark_has_no_metric(
    tiny_model: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(_ROWS), encoding="utf-8")
    plain = ("evaluate", "-m", tiny_model, "--dataset_path", data, "--json")
    without, around = (lmflow_cli(*plain, *flags).json() for flags in ((), ("--prompt_structure", "Input: {input}")))
    assert without["tokens"] == around["tokens"]
    assert without["nll_per_token"] != around["nll_per_token"]
    measured = lmflow_cli(*plain, "--metric", "ppl").json()["metrics"]
    assert measured["data perplexity"] == pytest.approx(without["perplexity"])
    for flags in (("--benchmark", "passkey", "--metric", "nll"), ("--metric", "nll", "--benchmark", "passkey")):
        refused = lmflow_cli(*plain, *flags)
        assert refused.status == 2
        assert "--metric belongs to benchmark 'lmflow': add --benchmark lmflow" in refused.stderr
