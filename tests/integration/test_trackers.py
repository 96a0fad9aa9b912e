"""Trackers by name: real files of TensorBoard, and clear words for those that are not there or cannot start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations import TensorBoardCallback

from lmflow_core.api import LmflowError, RequestError
from lmflow_core.testing.fixtures import CliResult
from lmflow_transformers.training.trackers import explain_failed_start, prepare_trackers


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers read where to write from the environment; what one test sets ends with it."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_tensorboard_gets_the_losses_of_the_run(tiny_model: Path, tmp_path: Path, lmflow_cli: Any) -> None:
    data, output = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text('{"input": "hello", "output": "world"}\n' * 4, encoding="utf-8")
    flags = ["--batch-size", "2", "--logging-steps", "1", "--report-to", "tensorboard", "--json"]
    result: CliResult = lmflow_cli("finetune", "--model", tiny_model, "--dataset", data, "--output", output, *flags)
    assert result.status == 0, result.stderr
    events = EventAccumulator(str(output / "trackers" / "tensorboard"))
    events.Reload()
    written = [(event.step, event.value) for event in events.Scalars("train/loss")]
    losses = [tuple(point) for point in result.json()["losses"]]
    assert [step for step, _ in written] == [step for step, _ in losses] == [1, 2]
    assert [value for _, value in written] == pytest.approx([loss for _, loss in losses], abs=1e-4)


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"unknown tracker 'tensorbored' in --report-to; known: .*tensorboard"):
        prepare_trackers(["tensorbored"], tmp_path)


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmflow_transformers.training.trackers.get_available_reporting_integrations", list)
    for name, told in {
        "wandb": "the tracker wandb is not installed: pip install wandb",
        "azure_ml": "the tracker azure_ml is not installed: pip install azureml-core",
        "comet_ml": "the tracker comet_ml is not ready: pip install comet-ml, and set COMET_API_KEY",
    }.items():
        with pytest.raises(RequestError, match=f"^{told}$"):
            prepare_trackers([name], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_cannot_start_says_why_and_leaves_no_folder(tmp_path: Path) -> None:
    prepare_trackers(["tensorboard"], tmp_path)
    callback = TensorBoardCallback()

    def setup(*_: Any) -> None:
        raise OSError("no\nserver")

    callback.setup = setup
    explain_failed_start(callback, tmp_path)
    with pytest.raises(LmflowError, match="the tracker tensorboard cannot start: no server"):
        callback.setup()
    assert not list(tmp_path.iterdir())
