"""``--resume``: what must be as it was, what may change, and that the result is that of one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lmflow_core
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import make_tiny_model

Cli = Callable[..., CliResult]
Run = Callable[..., CliResult]


def _write(file: Path, words: list[str]) -> Path:
    rows = [{"prompt": f"say {word}", "completion": f"{word} and fox"} for word in words]
    file.write_text("\n".join(json.dumps({"input": r["prompt"], "output": r["completion"]}) for r in rows))
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return _write(tmp_path / "data.jsonl", ["one", "two", "three", "four", "five", "six", "seven", "eight"])


@pytest.fixture
def run(lmflow_cli: Cli, tiny_model: Path, data: Path) -> Run:
    """Train four steps an epoch, with a constant learning rate, so that a longer run begins as a shorter one."""

    def train(output: Path, *more: object) -> CliResult:
        shared = ("--model", tiny_model, "--dataset", data, "--batch-size", "2", "--lr", "1e-2")
        course = ("--lr-scheduler-type", "constant", "--tuner", "lora")
        return lmflow_cli("finetune", *shared, *course, "--output", output, *more)

    return train


@pytest.fixture
def begun(run: Run, tmp_path: Path) -> Path:
    """The output of a run of one epoch with checkpoints at steps 2 and 4."""
    result = run(tmp_path / "begun", "--save-steps", "2")
    assert result.status == 0, result.stderr
    return tmp_path / "begun"


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return weights


def _assert_same_result(first: Path, second: Path) -> None:
    ours, theirs = _weights(first), _weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_what_the_result_does_not_depend_on_may_change(run: Run, begun: Path, data: Path, tmp_path: Path) -> None:
    moved, copied = tmp_path / "moved", tmp_path / "copied.jsonl"
    shutil.move(begun, moved)
    shutil.copy(data, copied)
    free = ("--dataset", copied, "--save-steps", "3", "--logging-steps", "1", "--save-total-limit", "5", "--no-cache")
    resumed = run(moved, "--resume", "--epochs", "2", "--eval-dataset", data, "--eval-steps", "5", *free)
    assert resumed.status == 0, resumed.stderr
    assert f"going on from {moved / 'checkpoints' / 'checkpoint-4'}; changed since: --epochs was" in resumed.stderr
    assert run(tmp_path / "whole", "--epochs", "2").status == 0
    _assert_same_result(moved, tmp_path / "whole")
    record = json.loads((moved / "run.json").read_text())
    assert [step for step, _ in record["losses"]][-4:] == [5, 6, 7, 8]
    assert [step for step, _ in record["validation_losses"]] == [5, 8]
    names = {path.name for path in (moved / "checkpoints").iterdir()}
    assert names == {"checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"}


CHANGES: list[tuple[tuple[str, ...], str]] = [
    (("--lora-r", "4"), "--lora-r was 8, is 4"),
    (("--seed", "7"), "--seed was 42, is 7"),
    (("--lr", "2e-2"), "--lr was 0.01, is 0.02"),
    (("--tuner", "full"), "--tuner was lora, is full"),
    (("--batch-size", "4"), "--batch-size was 2, is 4"),
    (("--max-train-samples", "6"), "--max-train-samples was not given, is 6"),
    (("--train-on", "all", "--eval-share", "0.5"), "--eval-share was 0.0, is 0.5"),
    (("--no-plugin", "streaming"), f"plugin streaming was {lmflow_core.__version__}, is absent"),
]


@pytest.mark.parametrize(("flags", "told"), CHANGES)
def test_what_it_depends_on_is_refused_by_name(run: Run, begun: Path, flags: tuple[str, ...], told: str) -> None:
    before = sorted(path.name for path in begun.rglob("*"))
    refused = run(begun, "--resume", "--epochs", "2", *flags)
    assert refused.status == 2
    assert f"{begun / 'checkpoints' / 'checkpoint-4'} was trained otherwise: " in refused.stderr
    assert told in refused.stderr
    assert sorted(path.name for path in begun.rglob("*")) == before


def test_a_plugin_that_takes_no_part_in_training_may_go(run: Run, begun: Path) -> None:
    assert run(begun, "--resume", "--epochs", "2", "--no-plugin", "webui").status == 0


def test_other_data_in_the_same_file_is_refused(run: Run, begun: Path, data: Path) -> None:
    _write(data, ["nine"] * 8)
    refused = run(begun, "--resume", "--epochs", "2")
    assert refused.status == 2
    assert "was trained otherwise: the data was " in refused.stderr


def test_other_weights_in_the_same_folder_are_refused(run: Run, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    begun = tmp_path / "begun"
    assert run(begun, "--model", model, "--save-steps", "2").status == 0
    make_tiny_model(model, seed=1)
    refused = run(begun, "--model", model, "--resume", "--epochs", "2")
    assert refused.status == 2
    assert "was trained otherwise: the model was " in refused.stderr


def test_who_knows_goes_on_anyway_and_is_told(run: Run, begun: Path) -> None:
    resumed = run(begun, "--resume-anyway", "--epochs", "2", "--weight-decay", "0.5")
    assert resumed.status == 0, resumed.stderr
    assert "changed since: --weight-decay was 0.0, is 0.5; --epochs was 1.0, is 2.0" in resumed.stderr


def test_a_run_that_ends_before_its_checkpoint_is_refused(run: Run, begun: Path) -> None:
    refused = run(begun, "--resume", "--max-steps", "3")
    assert refused.status == 2
    assert "is at step 4, and the run is to end at step 3: raise --epochs or --max-steps" in refused.stderr


def test_a_damaged_checkpoint_does_not_push_out_a_whole_one(run: Run, begun: Path, tmp_path: Path) -> None:
    checkpoints = begun / "checkpoints"
    (checkpoints / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    shutil.copytree(checkpoints / "checkpoint-4", checkpoints / "checkpoint-99")
    resumed = run(begun, "--resume", "--epochs", "2", "--save-steps", "3")
    assert resumed.status == 0, resumed.stderr
    for name in ("checkpoint-99", "checkpoint-4"):
        assert f"skipping {checkpoints / name}, which is damaged: optimizer.pt" in resumed.stderr
    assert f"going on from {checkpoints / 'checkpoint-2'}" in resumed.stderr
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-6", "checkpoint-8"]
    assert run(tmp_path / "whole", "--epochs", "2").status == 0
    _assert_same_result(begun, tmp_path / "whole")
