"""Weights, gradients and state spread over two processes: what one process does, or a refusal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.testing.scripts import load_script

pytestmark = pytest.mark.slow

_TUNERS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "lora": ["--tuner", "lora", "--lora-dropout", "0"],
    "lisa": ["--tuner", "lisa", "--lisa-activated-layers", "1", "--lisa-interval-steps", "2"],
    "qlora": ["--tuner", "qlora", "--lora-dropout", "0"],
}
_TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lmflow_core"]
_ONE = [sys.executable, "-m", "lmflow_core"]
_ENGINES = ("torchrun", "fsdp", "zero0", "zero1", "zero2", "zero3")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)


def _chosen(engine: str, folder: Path) -> list[str]:
    """Return the flags that choose an engine, ZeRO by its stage."""
    if not engine.startswith("zero"):
        return ["--engine", engine]
    pytest.importorskip("deepspeed")
    # By default DeepSpeed keeps whole what is as small as all of this model.
    zero = {"stage": int(engine[-1]), "stage3_param_persistence_threshold": 0}
    file = folder / "ds.json"
    file.write_text(json.dumps({"zero_optimization": zero}), encoding="utf-8")
    return ["--deepspeed", str(file)]


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


def _check_alike(one: Path, other: Path, tolerance: float = 1e-4, steps: int = 20) -> None:
    from safetensors.torch import load_file

    records: list[dict[str, Any]] = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    first, second = ([loss for _, loss in record["losses"]] for record in records)
    assert len(first) == steps
    assert second == pytest.approx(first, abs=tolerance)
    assert records[0]["tokens"] == records[1]["tokens"]
    (name,) = (path.name for path in one.glob("*model.safetensors"))
    weights, others = load_file(one / name), load_file(other / name)
    assert weights.keys() == others.keys()
    assert max(float((weights[key] - others[key]).abs().max()) for key in weights) <= tolerance


def _check_two(job: Sequence[str], alone: Callable[[str], Path], tuner: str, folder: Path, *, steps: int = 20) -> None:
    finished = _run([*_TWO, *job, *_TUNERS[tuner], "--batch-size", "4", "--output", str(folder / "two")])
    assert finished.returncode == 0, finished.stderr
    _check_alike(alone(tuner), folder / "two", steps=steps)


# LISA switches layers every second step.
@pytest.mark.parametrize("tuner", ["full", "lora", "lisa"])
@pytest.mark.parametrize("engine", _ENGINES)
def test_two_processes_equal_one(
    engine: str, tuner: str, flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    _check_two([*flags, *_chosen(engine, tmp_path)], alone, tuner, tmp_path)


@pytest.mark.parametrize(
    ("engine", "tuner", "more"),
    [
        ("zero3", "full", ["--zero-offload-optimizer", "cpu"]),
        ("zero2", "lisa", ["--zero-offload-optimizer", "cpu"]),
        ("zero3", "lisa", ["--zero-offload-optimizer", "cpu"]),
        ("fsdp", "full", ["--gradient-checkpointing"]),
        ("fsdp", "full", ["--fsdp-reshard-after-forward", "false"]),
    ],
)
def test_options_change_nothing(
    engine: str, tuner: str, more: list[str], flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    _check_two([*flags, *_chosen(engine, tmp_path), *more], alone, tuner, tmp_path)


@pytest.mark.parametrize("engine", ["torchrun", "zero0", "zero1", "zero2"])
def test_quantised_weights_beside_adapters_train(
    engine: str, flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    _check_two([*flags, *_chosen(engine, tmp_path)], alone, "qlora", tmp_path)


_REWARD = ["--reward", "regex", "--regex-pattern", ".*e.*"]
_OBJECTIVES = {
    "distillation": ["--objective", "distillation"],
    "slic": ["--objective", "slic"],
    "rloo": ["--objective", "rloo", *_REWARD, "--rloo-samples", "3", "--rloo-max-new-tokens", "6"],
    "dpo": ["--objective", "dpo"],
    "kto": ["--objective", "kto"],
    "reward": ["--objective", "reward"],
}
# Every one runs under every engine but for what is refused; the engines that spread weights are the hard ones.
_SPREAD = [(engine, objective) for engine in ("fsdp", "zero3") for objective in _OBJECTIVES]
_PAIRS = [{"instruction": f"say {n}", "chosen": "yes " * (n % 5 + 1), "rejected": "no"} for n in range(8)]


@pytest.fixture(scope="module")
def objective_flags(tiny_model: Path, peaked_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that gives the flags of an objective; rows are of what it learns from."""
    folder = tmp_path_factory.mktemp("rows")
    rows: dict[str, list[dict[str, Any]]] = {
        "distillation": [{"prompt": f"say {n}", "completion": "yes " * (n % 5 + 1)} for n in range(8)],
        "slic": _PAIRS,
        "dpo": _PAIRS,
        "reward": _PAIRS,
        "kto": [{"prompt": f"say {n}", "completion": "yes " * (n % 5 + 1), "label": n % 2 == 0} for n in range(8)],
        "rloo": [{"prompt": f"say {n} " + "again " * (n % 3)} for n in range(8)],
    }

    def flags(objective: str) -> list[str]:
        data = folder / f"{objective}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows[objective])), encoding="utf-8")
        teacher = ["--teacher", str(peaked_model)] if objective == "distillation" else []
        shared = ["--lr", "1e-3", "--epochs", "2", "--logging-steps", "1", "--eval-dataset", str(data)]
        return [
            "finetune",
            "--model",
            str(tiny_model),
            "--dataset",
            str(data),
            *_OBJECTIVES[objective],
            *teacher,
            *shared,
        ]

    return flags


@pytest.fixture(scope="module")
def objective_alone(objective_flags: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def result(objective: str) -> Path:
        if objective not in made:
            made[objective] = tmp_path_factory.mktemp("alone") / objective
            job = [*objective_flags(objective), "--batch-size", "4", "--engine", "local"]
            finished = _run([*_ONE, *job, "--output", str(made[objective])])
            assert finished.returncode == 0, finished.stderr
        return made[objective]

    return result


# Answers are of different lengths, so that the processes do not run their layers in step.
@pytest.mark.parametrize(
    ("engine", "objective"), [*_SPREAD, ("torchrun", "rloo"), ("zero2", "rloo"), ("zero2", "dpo"), ("zero0", "slic")]
)
def test_every_objective_learns_what_one_process_learns(
    engine: str, objective: str, objective_flags: Any, objective_alone: Callable[[str], Path], tmp_path: Path
) -> None:
    job = [*objective_flags(objective), *_chosen(engine, tmp_path), "--batch-size", "2"]
    finished = _run([*_TWO, *job, "--output", str(tmp_path / "two")])
    assert finished.returncode == 0, finished.stderr
    one = objective_alone(objective)
    _check_alike(one, tmp_path / "two", steps=4)
    records = [json.loads((folder / "run.json").read_text()) for folder in (one, tmp_path / "two")]
    first, second = ([loss for _, loss in record["validation_losses"]] for record in records)
    assert len(first) == 2
    assert second == pytest.approx(first, abs=1e-4)


@pytest.mark.parametrize("engine", ["torchrun", "fsdp", "zero3"])
def test_rounds_sample_what_one_process_samples(engine: str, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"say {n}"}) for n in range(6)), encoding="utf-8")
    job = ["finetune", "--model", str(tiny_model), "--dataset", str(data), "--objective", "raft", *_REWARD]
    job += ["--raft-method", "raft++", "--raft-samples", "6", "--raft-max-new-tokens", "4", "--lr", "1e-3"]
    job += ["--epochs", "2"]
    for command, name, more in (
        (_ONE, "one", ["--batch-size", "2"]),
        (_TWO, "two", [*_chosen(engine, tmp_path), "--batch-size", "1"]),
    ):
        finished = _run([*command, *job, *more, "--output", str(tmp_path / name)])
        assert finished.returncode == 0, finished.stderr
    files = [tmp_path / name / "checkpoints" / "samples" / "step-000000.jsonl" for name in ("one", "two")]
    rounds = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    rounds = [sorted(rows, key=lambda row: (row["prompt_ids"], row["answer_ids"])) for rows in rounds]
    kinds = [[(row["prompt_ids"], row["answer_ids"], row["reward"], row["learned"]) for row in rows] for rows in rounds]
    assert kinds[0] == kinds[1]
    measured = [[row["numbers"]["old_logprobs"] for row in rows if row["learned"]] for rows in rounds]
    assert measured[0]
    for one, two in zip(*measured, strict=True):
        assert one == pytest.approx(two, abs=1e-4)
    assert len({*(tuple(answer) for _, answer, _, _ in kinds[0])}) > 6


@pytest.mark.parametrize(
    ("engine", "tuner"),
    [("fsdp", "full"), ("fsdp", "lora"), ("fsdp", "lisa"), ("zero2", "lisa"), ("zero3", "full"), ("zero3", "lisa")],
)
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    engine: str, tuner: str, flags: list[str], tmp_path: Path
) -> None:
    job = [*flags, *_TUNERS[tuner], "--batch-size", "4", *_chosen(engine, tmp_path)]
    command = [*_TWO, *job, "--save-steps", "11", "--output", str(tmp_path / "out")]
    whole = _run(command)
    assert whole.returncode == 0, whole.stderr
    shutil.copytree(tmp_path / "out", tmp_path / "whole")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "checkpoint-20")
    resumed = _run([*command, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert "step 11/" not in resumed.stderr
    assert "step 12/" in resumed.stderr
    _check_alike(tmp_path / "whole", tmp_path / "out", 1e-7)


def test_shards_are_resumed_by_another_number_of_processes_where_that_is_wanted(
    flags: list[str], alone: Callable[[str], Path], tmp_path: Path
) -> None:
    job = [*flags, *_TUNERS["full"], "--save-steps", "12", "--output", str(tmp_path / "out")]
    sharded = _run([*_TWO, *job, "--batch-size", "4", "--engine", "fsdp"])
    assert sharded.returncode == 0, sharded.stderr
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "checkpoint-20")
    refused = _run([*_ONE, *job, "--batch-size", "8", "--engine", "local", "--resume"])
    assert refused.returncode != 0
    assert "the number of processes" in refused.stderr
    resumed = _run([*_ONE, *job, "--batch-size", "8", "--engine", "local", "--resume", "--resume-anyway"])
    assert resumed.returncode == 0, resumed.stderr
    _check_alike(alone("full"), tmp_path / "out")


@pytest.mark.parametrize("engine", ["fsdp", "zero3"])
@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_the_best_weights_are_kept(engine: str, tuner: str, flags: list[str], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    # What is measured is not what is learned, so that the loss does not stay where it was best.
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Quartz, zebra; jumps: 1234"}]
    other, out = tmp_path / "other.jsonl", tmp_path / "out"
    other.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    measuring = ["--eval-dataset", str(other), "--eval-steps", "2", "--load-best-model"]
    job = [*flags, *_TUNERS[tuner], *measuring, "--lr", "5e-2"]
    finished = _run([*_TWO, *job, "--batch-size", "4", *_chosen(engine, tmp_path), "--output", str(out)])
    assert finished.returncode == 0, finished.stderr
    measured = json.loads((out / "run.json").read_text())["validation_losses"]
    step, _ = min(measured, key=lambda point: point[1])
    assert step < measured[-1][0]
    (result,) = out.glob("*model.safetensors")
    weights, best = load_file(result), load_file(out / "checkpoints" / f"checkpoint-{step}" / result.name)
    assert weights.keys() == best.keys()
    assert all(torch.equal(weights[name], best[name]) for name in weights)


def test_bytes_in_each_process() -> None:
    pytest.importorskip("deepspeed")
    script = load_script(Path(__file__).parents[2] / "benchmarks" / "sharding.py")
    found = script.measured(2, 128)
    whole, sharded = found["torchrun"], found["fsdp"]
    for tuner in ("full", "lisa"):
        assert sharded[tuner]["weights"] == pytest.approx(whole[tuner]["weights"] / 2, rel=0.01)
        assert found["ZeRO 3"][tuner]["weights"] == pytest.approx(whole[tuner]["weights"] / 2, rel=0.01)
        for engine in ("fsdp", "ZeRO 1", "ZeRO 2", "ZeRO 3"):
            # Four layers have trained for a step each by now; the state is that of one, half of it in each process.
            assert found[engine][tuner]["state"] == pytest.approx(whole[tuner]["state"] / 2, rel=0.01)
        assert whole["lisa"]["state"] < 0.6 * whole["full"]["state"]


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
        (["--tuner", "lora", "--lora-pissa", "--zero-stage", "3"], "--lora-pissa takes from weights"),
        (["--tuner", "lisa", "--lisa-inactive-state", "offload", "--zero-stage", "1"], "--lisa-inactive-state offload"),
        (["--tuner", "draft", "--zero-stage", "3"], "--tuner draft takes layers out of a model"),
        (["--tuner", "qlora", "--zero-stage", "3"], "ZeRO stage 3 cannot spread weights of the form nf4"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_loads(
    more: list[str], told: str, flags: list[str], tmp_path: Path
) -> None:
    finished = _run([*_ONE, *flags, "--engine", "deepspeed", *more, "--output", str(tmp_path / "out")])
    assert finished.returncode != 0
    assert told in finished.stderr
    assert not (tmp_path / "out").exists()
