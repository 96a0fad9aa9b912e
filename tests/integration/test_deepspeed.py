"""ZeRO on two processes does what one process does, or is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow

_TUNERS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "lora": ["--tuner", "lora", "--lora-dropout", "0"],
    "lisa": ["--tuner", "lisa", "--lisa-activated-layers", "1", "--lisa-interval-steps", "2"],
}
_TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lmflow_core"]
_ONE = [sys.executable, "-m", "lmflow_core"]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def flags(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    rows = [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "yes " * (n % 7 + 1)}]}
        for n in range(40)
    ]
    data = tmp_path_factory.mktemp("data") / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shared = ["--lr", "1e-2", "--epochs", "4", "--logging-steps", "1"]
    return ["finetune", "--model", str(tiny_model), "--dataset", str(data), *shared]


@pytest.fixture(scope="module")
def alone(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def result(tuner: str) -> Path:
        if tuner not in made:
            made[tuner] = tmp_path_factory.mktemp("alone") / tuner
            job = [*flags, *_TUNERS[tuner], "--batch-size", "8", "--engine", "local"]
            finished = _run([*_ONE, *job, "--output", str(made[tuner])])
            assert finished.returncode == 0, finished.stderr
        return made[tuner]

    return result


def _check_alike(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    from safetensors.torch import load_file

    records: list[dict[str, Any]] = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    first, second = ([loss for _, loss in record["losses"]] for record in records)
    assert len(first) == 20
    assert second == pytest.approx(first, abs=tolerance)
    assert records[0]["tokens"] == records[1]["tokens"]
    (name,) = (path.name for path in one.glob("*model.safetensors"))
    weights, others = load_file(one / name), load_file(other / name)
    assert weights.keys() == others.keys()
    assert max(float((weights[key] - others[key]).abs().max()) for key in weights) <= tolerance


@pytest.mark.parametrize(
    ("tuner", "stage", "more"),
    [
        ("full", "0", []),
        ("full", "1", []),
        ("full", "2", []),
        ("full", "3", []),
        ("full", "3", ["--zero-offload-optimizer", "cpu"]),
        ("lora", "3", []),
        ("lisa", "0", []),
    ],
)
def test_two_processes_equal_one(
    tuner: str, stage: str, more: list[str], flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    # By default DeepSpeed keeps whole what is as small as all of this model.
    file = tmp_path / "ds.json"
    zero = {"stage": int(stage), "stage3_param_persistence_threshold": 0}
    file.write_text(json.dumps({"zero_optimization": zero}), encoding="utf-8")
    job = [*flags, *_TUNERS[tuner], "--batch-size", "4", "--deepspeed", str(file), *more]
    finished = _run([*_TWO, *job, "--output", str(tmp_path / "two")])
    assert finished.returncode == 0, finished.stderr
    _check_alike(alone(tuner), tmp_path / "two")


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(flags: list[str], tmp_path: Path) -> None:
    job = [*flags, *_TUNERS["full"], "--batch-size", "4", "--engine", "deepspeed", "--zero-stage", "3"]
    command = [*_TWO, *job, "--save-steps", "12", "--output", str(tmp_path / "out")]
    whole = _run(command)
    assert whole.returncode == 0, whole.stderr
    shutil.copytree(tmp_path / "out", tmp_path / "whole")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "checkpoint-20")
    resumed = _run([*command, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert "step 12/" not in resumed.stderr
    assert "step 13/" in resumed.stderr
    _check_alike(tmp_path / "whole", tmp_path / "out", 1e-7)


def test_one_process_alone_takes_a_file_of_the_original(
    flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    sizes = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
    zero = {"stage": 3, "overlap_comm": True, "contiguous_gradients": True, **dict.fromkeys(sizes, "auto")}
    of_the_run = ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size")
    config = {"fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"}, "zero_optimization": zero}
    file = tmp_path / "ds_config_zero3.json"
    file.write_text(json.dumps({**config, **dict.fromkeys(of_the_run, "auto")}), encoding="utf-8")
    job = [*flags, *_TUNERS["full"], "--batch-size", "8", "--deepspeed", str(file)]
    finished = _run([*_ONE, *job, "--output", str(tmp_path / "one")])
    assert finished.returncode == 0, finished.stderr
    _check_alike(alone("full"), tmp_path / "one")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--tuner", "lisa", "--zero-stage", "1"], "--tuner lisa freezes weights while it trains"),
        (["--tuner", "lora", "--lora-pissa", "--zero-stage", "3"], "--lora-pissa takes from weights"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_loads(
    more: list[str], told: str, flags: list[str], tmp_path: Path
) -> None:
    finished = _run([*_ONE, *flags, "--engine", "deepspeed", *more, "--output", str(tmp_path / "out")])
    assert finished.returncode != 0
    assert told in finished.stderr
    assert not (tmp_path / "out").exists()
