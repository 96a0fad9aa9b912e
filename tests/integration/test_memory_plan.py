"""``lmflow doctor --plan``: what is told, what is proposed, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.cli.main import run
from lmflow_core.contracts.settings import PlanSettings
from lmflow_core.testing.references import finetuned
from lmflow_core.testing.scripts import load_script

_ROOT = Path(__file__).parents[2]

# Wide enough for its activations to count beside what a process takes in any case.
CONFIG = {
    "model_type": "llama",
    "vocab_size": 1000,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
}
Planned = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture
def planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> Planned:
    def plan(*flags: str) -> dict[str, Any]:
        assert run(["doctor", "--plan", "--json", "--model", str(folder), *flags]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return plan


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refuse(*arguments: str) -> str:
        assert run([argument.replace("FOLDER", str(folder)) for argument in arguments]) == 2
        return capsys.readouterr().err

    return refuse


def device(part: str, plan: dict[str, Any]) -> int:
    return sum(each["device_bytes"] for each in plan["parts"] if each["name"] == part)


@pytest.mark.parametrize("tuner", ["lora", "lisa"])
def test_what_trains_is_what_trains_in_a_run(
    tuner: str, tiny_model: Path, planned: Planned, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of the plan has no numbers; that of the run is made of a folder with weights."""
    from lmflow_transformers.training.trainer import LossTrainer

    seen: list[int] = []
    step = LossTrainer.training_step

    def counted(self: Any, model: Any, *rest: Any) -> Any:
        loss = step(self, model, *rest)
        seen.append(sum(p.numel() for p in model.parameters() if p.grad is not None))
        return loss

    monkeypatch.setattr(LossTrainer, "training_step", counted)
    flags = ["--tuner", tuner, *(["--lisa-activated-layers", "1"] if tuner == "lisa" else ["--lora-r", "3"])]
    rows = folder / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a b c d"}) + "\n")
    finetuned(folder / "out", "--model", tiny_model, "--dataset", rows, *flags, "--max-steps", 1)
    plan = planned("--model", str(tiny_model), *flags)
    assert seen == [plan["trained"]]


def test_a_change_makes_it_fit_by_the_plan_itself(planned: Planned) -> None:
    flags = ("--gpus", "1", "--batch-size", "16", "--max-length", "512")
    whole = planned(*flags)
    limit = f"{whole['device_bytes'] / 1e9 - 0.05:.4f}"
    told = planned(*flags, "--memory", limit)
    assert (whole["fits"], told["fits"]) == (None, False)
    change = told["change"]
    assert change["values"]["batch_size"] * change["values"]["gradient_accumulation_steps"] == 16
    again = planned("--gpus", "1", "--max-length", "512", "--memory", limit, *change["flags"].split())
    assert again["fits"] is True
    assert again["device_bytes"] == change["device_bytes"]


def test_where_nothing_fits_that_is_said(planned: Planned) -> None:
    told = planned("--gpus", "1", "--memory", "10MB", "--max-length", "64", "--batch-size", "1")
    assert (told["fits"], told["change"]) == (False, None)


def test_zero_spreads_and_offloads(planned: Planned) -> None:
    pytest.importorskip("deepspeed")
    flags = ("--gpus", "4", "--engine", "deepspeed", "--max-length", "64", "--zero-stage")
    second, third = planned(*flags, "2"), planned(*flags, "3")
    assert device("weights", third) == -(-device("weights", second) // 4)
    assert device("optimizer state", second) == -(-8 * second["trained"] // 4)
    assert device("copies for the update", second) == second["trained"]
    offloaded = planned(*flags, "3", "--zero-offload-optimizer", "cpu")
    assert device("optimizer state", offloaded) == 0
    assert offloaded["main_bytes"] - third["main_bytes"] == 3 * third["trained"]


def test_a_run_file_is_planned_as_it_is(planned: Planned, folder: Path) -> None:
    file = folder / "run.yaml"
    file.write_text("tuner: lora\nlora_r: 5\nmax_length: 64\ndataset: rows.json\noutput: out\n")
    assert planned(str(file))["trained"] == planned("--tuner", "lora", "--lora-r", "5", "--max-length", "64")["trained"]


def test_a_configuration_alone_is_enough(planned: Planned, folder: Path) -> None:
    file = folder / "config.json"
    assert planned("--model", str(file), "--max-length", "64") == planned("--max-length", "64")


def test_people_are_told_in_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--plan", "--model", str(folder), "--gpus", "1", "--memory", "24"]) == 0
    told = capsys.readouterr().out
    assert all(
        re.search(rf"^{part} ", told, re.MULTILINE) for part in ("weights", "gradients", "activations", "in all")
    )
    assert "it fits" in told
    assert "assumed: examples have 512 tokens" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor", "--gpus", "2"], "--gpus belongs to a plan of a training run: add --plan"),
        (["doctor", "--memory", "2"], "--memory belongs to a plan of a training run: add --plan"),
        (["doctor", "--plan"], "--model"),
        (["doctor", "--plan", "--model", "FOLDER", "--gpus", "0"], "--gpus"),
        (["doctor", "--plan", "--model", "FOLDER", "--gpus", "2"], "--engine local is one process"),
        (["doctor", "--plan", "--model", "FOLDER", "--memory", "much"], "--memory 'much' must be a size"),
        (["doctor", "--plan", "--model", "FOLDER", "--memory", "0"], "--memory '0' must be a size above 0"),
        (["doctor", "--plan", "--model", "FOLDER", "--bach-size", "1"], "unknown option --bach-size"),
        (["doctor", "--plan", "--model", "FOLDER", "--gpus", "1", "--device", "cpu"], "leave one of them out"),
        (["doctor", "--plan", "--model", "FOLDER", "--activation-offload"], "on a CPU activations are in main memory"),
        (["doctor", "--plan", "--model", "FOLDER/nowhere"], "no such folder"),
        (["doctor", "--plan", "--model", "nonesuch"], "nonesuch"),
    ],
)
def test_wrong_requests_are_refused(arguments: list[str], message: str, refused: Callable[..., str]) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "size"), [("24", 24 * 10**9), ("24GB", 24 * 10**9), ("1.5 GiB", 3 * 2**29), ("800mb", 800 * 10**6)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert PlanSettings(memory=text).device_bytes() == size


def test_doctor_without_a_plan_tells_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    assert {"platform", "devices", "missing"} <= json.loads(capsys.readouterr().out).keys()


@pytest.mark.slow
@pytest.mark.parametrize("tuner", ["full", "lora", "lisa", "qlora"])
def test_a_run_on_a_processor_takes_what_was_planned(tuner: str, smollm2_folder: Path, tmp_path: Path) -> None:
    """In processes of their own: the peak is that of a process."""
    benchmark = load_script(_ROOT / "benchmarks" / "memory_plan.py")
    rows = tmp_path / "rows.jsonl"
    text = " ".join(f"{number} and {number * number} are a number and its square." for number in range(400))
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(8)))
    flags = ["--model", str(smollm2_folder), "--tuner", tuner, "--device", "cpu", *benchmark.run_flags(512, 1)]
    told = json.loads(benchmark.lmflow("doctor", "--plan", "--json", *flags))
    assert told["device_bytes"] == pytest.approx(benchmark.measured(rows, flags), rel=0.15)
