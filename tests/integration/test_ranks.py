"""A job on two processes does what it does on one, or refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
_TUNERS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "lora": ["--tuner", "lora", "--lora-dropout", "0"],
    "lisa": ["--tuner", "lisa", "--lisa-activated-layers", "1", "--lisa-interval-steps", "1"],
}
# One process has another set of plugins than the other.
_UNLIKE = """
import os
if os.environ["RANK"] == "1":
    os.environ["LMFLOW_DISABLE_PLUGINS"] = "lisa"
from lmflow_core.cli.main import main
main()
"""

# An interruption comes to one process alone, before its second step.
_INTERRUPTED = """
import os, signal
from lmflow_core.cli.main import main
from lmflow_transformers.training.interruption import StopOnSignal

def interrupt(self, args, state, control, **_):
    if os.environ["RANK"] == "1" and state.global_step == 1:
        os.kill(os.getpid(), signal.SIGINT)

StopOnSignal.on_step_begin = interrupt
main()
"""
# The main process begins to write the result before the other ends its training.
_LATE = """
import os, sys, time
from pathlib import Path
from lmflow_core.cli.main import main
from lmflow_core.workflows import finetune

folder = Path(sys.argv[-1])
begun, ended = Path(f"{folder}.begun"), Path(f"{folder}.ended")
keep, train, remove = finetune._keep, finetune._train, finetune.remove_if_empty

def wait_for(path):
    while not path.exists():
        time.sleep(0.01)

def keep_slowly(*arguments):
    folder.mkdir(exist_ok=True)
    begun.touch()
    wait_for(ended)
    assert folder.is_dir()
    return keep(*arguments)

def train_late(*arguments):
    report = train(*arguments)
    ended.touch()
    return report

def remove_late(path):
    wait_for(begun)
    remove(path)

if os.environ["RANK"] == "0":
    finetune._keep = keep_slowly
else:
    finetune._train, finetune.remove_if_empty = train_late, remove_late
main()
"""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def flags(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    rows = [
        {"messages": [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "world " * (n + 1)}]}
        for n in range(8)
    ]
    data = tmp_path_factory.mktemp("data") / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    shared = ["--lr", "1e-2", "--epochs", "2", "--logging-steps", "1"]
    return ["finetune", "--model", str(tiny_model), "--dataset", str(data), *shared]


def _one_and_two(folder: Path, flags: list[str], batch_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the records of one process, and of two with half the batch each."""
    commands = {
        "one": [sys.executable, "-m", "lmflow_core", *flags, "--batch-size", str(batch_size)],
        "two": [*_LAUNCHER, "-m", "lmflow_core", *flags, "--batch-size", str(batch_size // 2)],
    }
    records: list[dict[str, Any]] = []
    for name, command in commands.items():
        finished = _run([*command, "--output", str(folder / name)])
        assert finished.returncode == 0, finished.stderr
        records.append(json.loads((folder / name / "run.json").read_text()))
    return records[0], records[1]


def _losses(record: dict[str, Any], name: str = "losses") -> list[float]:
    return [loss for _, loss in record[name]]


def _first_rows(flags: list[str], count: int, file: Path) -> str:
    data = Path(flags[flags.index("--dataset") + 1])
    file.write_text("\n".join(data.read_text(encoding="utf-8").splitlines()[:count]), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("tuner", _TUNERS)
def test_two_ranks_equal_one_process(tuner: str, flags: list[str], tmp_path: Path) -> None:
    one, two = _one_and_two(tmp_path, [*flags, *_TUNERS[tuner]], 8)
    assert (one["options"]["engine"], two["options"]["engine"]) == ("local", "torchrun")
    assert two["tokens"] == one["tokens"]
    assert [step for step, _ in two["losses"]] == [1, 2]
    assert _losses(two) == pytest.approx(_losses(one), abs=1e-4)


@pytest.mark.parametrize("count", [5, 7])
def test_no_process_learns_an_example_of_another(count: int, flags: list[str], tmp_path: Path) -> None:
    few = _first_rows(flags, count, tmp_path / "few.jsonl")
    # A large epsilon keeps AdamW's first steps from turning rounding errors of tiny gradients into whole steps.
    shared = [*flags, "--dataset", few, "--lr-scheduler-type", "constant", "--adam-epsilon", "1e-3"]
    one, two = _one_and_two(tmp_path, shared, 4)
    assert (two["steps"], two["tokens"]) == (one["steps"], one["tokens"])
    assert _losses(two) == pytest.approx(_losses(one), abs=1e-5)


@pytest.mark.parametrize("count", [3, 1])
def test_shares_of_validation_data_may_differ(count: int, flags: list[str], tmp_path: Path) -> None:
    few = _first_rows(flags, count, tmp_path / "few.jsonl")
    one, two = _one_and_two(tmp_path, [*flags, "--eval-dataset", few, "--max-steps", "2"], 2)
    assert _losses(two, "validation_losses") == pytest.approx(_losses(one, "validation_losses"), abs=1e-4)


def test_ranks_with_different_plugins_are_refused(flags: list[str], tmp_path: Path) -> None:
    script = tmp_path / "unlike.py"
    script.write_text(_UNLIKE, encoding="utf-8")
    finished = _run([*_LAUNCHER, str(script), *flags, "--output", str(tmp_path / "out")])
    assert finished.returncode != 0
    assert "the processes of this job do not have the same plugins (rank 0 " in finished.stderr
    assert not (tmp_path / "out").exists()


def test_a_process_that_ends_late_leaves_the_folder_of_the_result_alone(flags: list[str], tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    script.write_text(_LATE, encoding="utf-8")
    finished = _run([*_LAUNCHER, str(script), *flags, "--output", str(tmp_path / "out")])
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "run.json").exists()


def test_an_interruption_of_one_process_stops_all_with_a_checkpoint(flags: list[str], tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(_INTERRUPTED, encoding="utf-8")
    job = [*flags, "--batch-size", "1", "--output", str(tmp_path / "out")]
    stopped = _run([*_LAUNCHER, str(script), *job])
    assert stopped.stderr.count("lmflow: error: stopped at step 2; go on with --resume") == 2
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-2"]
    resumed = _run([*_LAUNCHER, "-m", "lmflow_core", *job, "--resume"])
    assert resumed.returncode == 0, resumed.stderr
    assert [step for step, _ in json.loads((tmp_path / "out" / "run.json").read_text())["losses"]] == list(range(1, 9))
