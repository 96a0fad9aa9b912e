"""Checkpoints that are damaged, cannot be written, or are asked for by a signal; the best one kept."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState

from lmflow_core.api import (
    IGNORE,
    EncodedExample,
    LmflowError,
    Recipe,
    RequestError,
    TrainingJob,
    TrainingReport,
    TrainingSettings,
)
from lmflow_core.testing.jobs import make_job, single
from lmflow_transformers.training import checkpointing, run, trainer
from lmflow_transformers.training.checkpoints import damage, last_whole_checkpoint
from lmflow_transformers.training.failures import check_finite
from lmflow_transformers.training.interruption import StopOnSignal
from lmflow_transformers.training.sft import SftObjective


def _rows(count: int = 8) -> Sequence[EncodedExample]:
    return [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 3 + count)]


def _train(
    folder: Path,
    checkpoints: Path,
    callback: TrainerCallback | None = None,
    resume: bool | None = None,
    **values: Any,
) -> tuple[TrainingReport, TrainingJob[Any]]:
    settings = TrainingSettings(**{"lr": 1e-2, "batch_size": 2, "epochs": 2, "save_steps": 2, **values})
    job = make_job(folder, checkpoints, settings, _rows(), validation=_rows(3) if settings.eval_dataset else None)
    job = job if resume is None else dataclasses.replace(job, resume=resume)

    class Watched(trainer.LossTrainer):
        """The trainer with a callback of the test's own."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if callback is not None:
                self.add_callback(callback)

    with patch.object(run, "LossTrainer", Watched):
        return SftObjective().train(job), job


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "checkpoint.json"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "checkpoints"
    _train(tiny_model, folder)
    assert _names(folder) == ["checkpoint-6", "checkpoint-8"]
    file = folder / "checkpoint-8" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert last_whole_checkpoint(folder) == folder / "checkpoint-6"
    assert f"skipping {folder / 'checkpoint-8'}, which is damaged: {name} is " in capsys.readouterr().err
    (folder / "checkpoint-6" / name).unlink()
    with pytest.raises(RequestError, match="holds 2 damaged checkpoints and no whole one"):
        last_whole_checkpoint(folder)


def test_a_full_disk_leaves_the_previous_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    place = checkpointing.put_in_place

    def full(partial: Path, final: Path) -> None:
        if final.name == "checkpoint-4":
            raise OSError(28, "No space left on device")
        place(partial, final)

    monkeypatch.setattr(checkpointing, "put_in_place", full)
    message = "the checkpoint of step 4 cannot be written to .*: No space left on device; earlier checkpoints are whole"
    with pytest.raises(LmflowError, match=message):
        _train(tiny_model, folder)
    assert _names(folder) == ["checkpoint-2"]
    assert damage(folder / "checkpoint-2") is None


def test_a_folder_that_cannot_be_written_is_told(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(LmflowError, match=r".*checkpoints cannot be used: File exists"):
        _train(tiny_model, folder, resume=False)
    assert folder.read_text(encoding="utf-8") == "a file where the folder should be"


def _too_much() -> None:
    torch.empty(1 << 60)


def _too_much_for_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("ask", [_too_much, _too_much_for_a_gpu])
def test_memory_that_runs_out_names_the_levers(tiny_model: Path, tmp_path: Path, ask: Callable[[], None]) -> None:
    class Hungry(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ask()

    with pytest.raises(
        LmflowError,
        match="memory ran out: lower --batch-size, --max-length or, in a single process, --micro-batch-tokens",
    ):
        _train(tiny_model, tmp_path / "checkpoints", Hungry())


def test_a_loss_that_is_no_number_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(LmflowError, match=r"the loss is nan at step \d: lower --lr"):
        _train(tiny_model, tmp_path / "checkpoints", lr=1e12, max_grad_norm=0.0, logging_steps=1, save_steps=None)


def test_ctrl_c_leaves_a_checkpoint_from_which_the_run_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    folder = tmp_path / "checkpoints"
    with pytest.raises(LmflowError, match="stopped at step 3; go on with --resume"):
        _train(tiny_model, folder, Interrupt(), save_steps=100)
    assert signal.getsignal(signal.SIGINT) is before
    assert _names(folder) == ["checkpoint-3"]
    resumed, job = _train(tiny_model, folder, save_steps=100)
    whole, other = _train(tiny_model, tmp_path / "other", save_steps=100)
    assert resumed.steps == whole.steps == 8
    for name, tensor in job.model.network.state_dict().items():
        assert torch.equal(tensor, other.model.network.state_dict()[name]), name


def test_a_signal_after_the_last_step_leaves_the_result(tiny_model: Path, tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                os.kill(os.getpid(), signal.SIGINT)

    report, _ = _train(tiny_model, tmp_path / "c", Interrupt(), eval_dataset=(Path("validation"),), save_steps=None)
    assert report.steps == 8


def test_a_signal_while_others_are_waited_for_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, control = StopOnSignal(), TrainerControl()

    def answer(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: None)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: "group")
    monkeypatch.setattr(torch.distributed, "all_reduce", answer)
    state = TrainerState(max_steps=9)
    stop.on_train_begin(SimpleNamespace(world_size=2), state, control)
    try:
        stop.on_step_end(None, state, control)
        assert not control.should_training_stop
        stop.on_step_end(None, state, control)
    finally:
        stop.give_back()
    assert stop.stopped
    assert control.should_training_stop
    assert control.should_save


def test_an_interrupted_epoch_is_measured_once_it_is_whole(tiny_model: Path, tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    values: dict[str, Any] = {"eval_dataset": (Path("validation"),), "save_steps": None, "load_best_model": True}
    with pytest.raises(LmflowError, match="stopped at step 3"):
        _train(tiny_model, tmp_path / "a", Interrupt(), **values)
    resumed, _ = _train(tiny_model, tmp_path / "a", **values)
    whole, _ = _train(tiny_model, tmp_path / "b", **values)
    assert [point.step for point in whole.validation["loss"]] == [4, 8]
    assert resumed.validation == whole.validation


def test_patience_goes_on_counting_where_the_checkpoint_left_off(tiny_model: Path, tmp_path: Path) -> None:
    class Interrupt(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            losses = [log["eval_loss"] for log in state.log_history if "eval_loss" in log]
            if len(losses) - losses.index(min(losses)) == 3:
                os.kill(os.getpid(), signal.SIGINT)

    values: dict[str, Any] = {
        "lr": 0.3,
        "epochs": 10,
        "eval_dataset": (Path("validation"),),
        "eval_steps": 1,
        "save_steps": None,
        "early_stopping_patience": 5,
        "lr_scheduler_type": "constant",
    }
    with pytest.raises(LmflowError, match="stopped at step"):
        _train(tiny_model, tmp_path / "a", Interrupt(), **values)
    resumed, _ = _train(tiny_model, tmp_path / "a", **values)
    whole, _ = _train(tiny_model, tmp_path / "b", **values)
    assert resumed.steps == whole.steps < 40


def test_patience_may_begin_with_a_resumed_run(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    values: dict[str, Any] = {"eval_dataset": (Path("validation"),), "save_steps": None, "load_best_model": True}
    _train(tiny_model, folder, epochs=1, **values)
    report, _ = _train(tiny_model, folder, early_stopping_patience=3, epochs=2, **values)
    assert report.steps == 8
    state = json.loads((folder / "checkpoint-8" / "trainer_state.json").read_text(encoding="utf-8"))
    assert "EarlyStoppingCallback" in state["stateful_callbacks"]


def test_the_state_names_the_best_checkpoint_where_it_is(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    _train(tiny_model, folder, eval_dataset=(Path("validation"),), save_steps=None, load_best_model=True)
    for checkpoint in folder.iterdir():
        best = json.loads((checkpoint / "trainer_state.json").read_text())["best_model_checkpoint"]
        assert Path(best).parent == folder


@pytest.mark.parametrize("save_steps", [None, 3])
def test_weights_that_are_no_numbers_are_not_kept(tiny_model: Path, tmp_path: Path, save_steps: int | None) -> None:
    values = {"lr": 1e30, "max_grad_norm": 0.0, "warmup_ratio": 0.0, "logging_steps": 100, "save_steps": save_steps}
    step = save_steps or 8
    with pytest.raises(LmflowError, match=f"the weights are no numbers any more at step {step}: lower --lr"):
        _train(tiny_model, tmp_path / "checkpoints", **values)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_write_that_safetensors_is_refused_is_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: File too large")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", refuse)
    with pytest.raises(LmflowError, match=r"the checkpoint of step 2 cannot be written to .*File too large; earlier"):
        _train(tiny_model, tmp_path / "checkpoints")
    assert not list(tmp_path.glob("checkpoints/*"))
    _, job = _train(tiny_model, tmp_path / "other", save_steps=None)
    with pytest.raises(OSError, match="I/O error: File too large"):
        job.model.save(tmp_path / "result", None)


def test_the_best_weights_are_kept_and_patience_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    report, job = _train(
        tiny_model,
        tmp_path / "checkpoints",
        lr=0.3,
        epochs=10,
        eval_dataset=(Path("validation"),),
        eval_steps=1,
        save_steps=None,
        load_best_model=True,
        early_stopping_patience=3,
        lr_scheduler_type="constant",
    )
    measured = [point.value for point in report.validation["loss"]]
    best = min(measured)
    assert report.steps == measured.index(best) + 1 + 3
    assert job.validation is not None
    examples = [job.validation[number] for number in range(3)]
    scores = list(job.model.score([example.sequences[0] for example in examples]))
    assert sum(s.nll for s in scores) / sum(s.tokens for s in scores) == pytest.approx(best, abs=1e-4)


_BEST: dict[str, Any] = {
    "lr": 0.3,
    "eval_dataset": (Path("validation"),),
    "eval_steps": 3,
    "load_best_model": True,
    "lr_scheduler_type": "constant",
}


def _best_step(report: TrainingReport) -> int:
    return min(report.validation["loss"], key=lambda point: point.value).step


def test_the_best_is_saved_besides_the_checkpoints_that_were_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    report, _ = _train(tiny_model, tmp_path / "c", **_BEST, save_steps=2, save_total_limit=9)
    saved = {int(name.removeprefix("checkpoint-")) for name in _names(tmp_path / "c")}
    lowest = float("inf")
    best = set()
    for point in report.validation["loss"]:
        if point.value < lowest:
            best.add(point.step)
            lowest = point.value
    assert {step % 3 for step in best} != {step % 2 for step in best}
    assert saved == {2, 4, 6, 8} | best
    assert 3 in saved


def test_without_save_steps_the_best_alone_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    report, _ = _train(tiny_model, tmp_path / "c", **_BEST, save_steps=None, save_total_limit=1)
    assert _names(tmp_path / "c") == [f"checkpoint-{_best_step(report)}"]


class _Spoil(TrainerCallback):
    """Makes weights zero from step 14 on: every token is as likely then, and no gradient changes that."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if state.global_step >= 13:
            for parameter in values["model"].parameters():
                parameter.data.zero_()


def test_the_limit_spares_the_best_and_the_newest(tiny_model: Path, tmp_path: Path) -> None:
    report, _ = _train(tiny_model, tmp_path / "c", _Spoil(), **_BEST, epochs=5, save_steps=2, save_total_limit=2)
    best = _best_step(report)
    assert best < 18
    assert _names(tmp_path / "c") == sorted({f"checkpoint-{best}", "checkpoint-20"})


def test_best_weights_that_are_lost_are_told_and_not_replaced_by_others(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "c"

    class Interrupt(_Spoil):
        def on_step_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
            super().on_step_begin(args, state, control, **values)
            if state.global_step == 18:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(LmflowError, match="stopped at step 19"):
        _train(tiny_model, folder, Interrupt(), **_BEST, epochs=5)
    best = folder / _names(folder)[0]
    (best / "model.safetensors").unlink()
    with pytest.raises(LmflowError, match=f"the best weights are lost: {best} is damaged .*--resume-anyway"):
        _train(tiny_model, folder, **_BEST, epochs=5)
    assert f"the best weights so far are lost: {best} is damaged" in capsys.readouterr().err


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for step in range(1, 7):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text("{}")
        checkpointing.mark_whole(checkpoint, Recipe())
    for step in (5, 6):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("")
    checkpointing.rotate(tmp_path, 2, str(tmp_path / "checkpoint-1"))
    assert _names(tmp_path) == ["checkpoint-1", "checkpoint-4"]
    for step in (1, 4):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("")
    checkpointing.rotate(tmp_path, 2, None)
    assert _names(tmp_path) == ["checkpoint-1", "checkpoint-4"]


def test_a_process_whose_weights_are_numbers_ends_with_the_one_whose_are_not() -> None:
    network = torch.nn.Linear(2, 2)
    check_finite(network, 3, lambda mine: [mine, True])
    with pytest.raises(LmflowError, match="the weights are no numbers any more at step 3"):
        check_finite(network, 3, lambda mine: [mine, False])


def test_a_file_of_another_process_belongs_to_a_whole_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{}")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "rank1.bin").write_bytes(b"12345")
    checkpointing.mark_whole(tmp_path, Recipe())
    assert damage(tmp_path) is None
    (tmp_path / "shards" / "rank1.bin").write_bytes(b"123")
    assert damage(tmp_path) == "shards/rank1.bin is missing or broken"
