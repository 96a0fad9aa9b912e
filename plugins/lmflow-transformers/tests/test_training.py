"""Training against a hand-written loop, under every way of splitting a step, and across interruptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmflow_core.api import (
    IGNORE,
    Destination,
    EncodedExample,
    LmflowError,
    ParameterGroup,
    TrainingJob,
    TrainingSettings,
)
from lmflow_core.testing.jobs import make_job, single
from lmflow_transformers.batches import Batch
from lmflow_transformers.options import AdamWOptions
from lmflow_transformers.training.loss import LossOutput, Mean
from lmflow_transformers.training.optimizers import AdamW, torch_groups
from lmflow_transformers.training.run import train
from lmflow_transformers.training.sft import SftLoss, SftObjective

# A large epsilon keeps AdamW's first step from turning rounding errors of tiny gradients into whole steps.
_EPSILON = 1e-3
_SETTINGS = TrainingSettings(
    lr=1e-2,
    lr_scheduler_type="constant",
    warmup_ratio=0.0,
    batch_size=8,
    logging_steps=1,
    max_grad_norm=0.0,
)


def _rows(count: int = 8) -> list[EncodedExample]:
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number in range(count):
        ids = torch.randint(3, 300, (4 + number,), generator=generator).tolist()
        rows.append(single(ids, [IGNORE, IGNORE, *ids[2:]]))
    return rows


def _job(
    folder: Path, checkpoints: Path, settings: TrainingSettings, rows: Sequence[EncodedExample] | None = None
) -> TrainingJob[Any]:
    optimizer = AdamW(AdamWOptions(adam_epsilon=_EPSILON))
    return make_job(folder, checkpoints, settings, _rows() if rows is None else rows, optimizer=optimizer)


def _weights(job: TrainingJob[Any]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in job.model.network.state_dict().items()}


def _assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def _reference_step(job: TrainingJob[Any]) -> float:
    """One AdamW step on the token-weighted mean loss, each example in a pass of its own, in plain torch."""
    network = job.model.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0, eps=_EPSILON)
    rows = [job.data[position].sequences[0] for position in range(len(job.data))]
    count = sum(label != IGNORE for row in rows for label in row.labels[1:])
    total = 0.0
    for row in rows:
        logits = network(input_ids=torch.tensor([list(row.input_ids)])).logits[0, :-1]
        targets = torch.tensor(list(row.labels[1:]))
        loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    optimizer.step()
    return total


def test_one_step_equals_a_plain_loop_over_unpacked_examples(tiny_model: Path, tmp_path: Path) -> None:
    job = _job(tiny_model, tmp_path / "a", _SETTINGS)
    report = SftObjective().train(job)
    reference = _job(tiny_model, tmp_path / "b", _SETTINGS)
    loss = _reference_step(reference)
    assert report.steps == 1
    assert report.tokens == sum(row.tokens for row in _rows())
    assert report.training["loss"][0].value == pytest.approx(loss, abs=1e-5)
    _assert_same(_weights(job), _weights(reference))


@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (1, 8)])
def test_accumulation_changes_nothing(tiny_model: Path, tmp_path: Path, batch: int, accumulation: int) -> None:
    whole = _job(tiny_model, tmp_path / "a", _SETTINGS)
    loss = SftObjective().train(whole).training["loss"][0].value
    split = dataclasses.replace(_SETTINGS, batch_size=batch, gradient_accumulation_steps=accumulation)
    parts = _job(tiny_model, tmp_path / "b", split)
    assert SftObjective().train(parts).training["loss"][0].value == pytest.approx(loss, abs=1e-5)
    _assert_same(_weights(parts), _weights(whole))


@pytest.mark.parametrize("tokens", [1, 12, 30])
def test_a_batch_in_parts_is_one_step(tiny_model: Path, tmp_path: Path, tokens: int) -> None:
    whole = _job(tiny_model, tmp_path / "a", dataclasses.replace(_SETTINGS, micro_batch_tokens=1000))
    report = SftObjective().train(whole)
    parts = _job(tiny_model, tmp_path / "b", dataclasses.replace(_SETTINGS, micro_batch_tokens=tokens))
    ours = SftObjective().train(parts)
    assert (ours.steps, ours.tokens) == (1, report.tokens)
    assert ours.training["loss"][0].value == pytest.approx(report.training["loss"][0].value, abs=1e-5)
    _assert_same(_weights(parts), _weights(whole))


def test_activation_checkpointing_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    plain = _job(tiny_model, tmp_path / "a", _SETTINGS)
    SftObjective().train(plain)
    saving = _job(tiny_model, tmp_path / "b", dataclasses.replace(_SETTINGS, gradient_checkpointing=True))
    SftObjective().train(saving)
    _assert_same(_weights(saving), _weights(plain), 1e-6)


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_a_resumed_run_ends_as_the_uninterrupted_one(tiny_model: Path, tmp_path: Path, logging_steps: int) -> None:
    settings = dataclasses.replace(
        _SETTINGS,
        batch_size=2,
        epochs=2,
        save_steps=3,
        save_total_limit=10,
        lr_scheduler_type="cosine",
        logging_steps=logging_steps,
    )
    whole = _job(tiny_model, tmp_path / "a", settings)
    report = train(whole, _Told())
    for step in (6, 8):
        for checkpoint in (tmp_path / "a").glob(f"checkpoint-{step}"):
            for file in checkpoint.iterdir():
                file.unlink()
            checkpoint.rmdir()
    resumed = _job(tiny_model, tmp_path / "a", settings)
    assert resumed.resume
    again = train(resumed, _Told())
    assert (again.training, again.tokens, again.steps) == (report.training, report.tokens, report.steps)
    assert len(again.training["longest"]) == 8 // logging_steps + (logging_steps > 1)
    assert again.seconds > 0
    for name, tensor in _weights(resumed).items():
        assert torch.equal(tensor, _weights(whole)[name]), name


class _Told(SftLoss):
    """The loss with a metric: the mean number of labelled tokens of a micro-batch."""

    def __init__(self, returns: Callable[[LossOutput], Any] | None = None) -> None:
        super().__init__(16)
        self._returns = returns

    def __call__(self, network: Any, batch: Batch) -> Any:
        total = super().__call__(network, batch).total
        output = LossOutput(total, {"longest": Mean(batch.labelled.sum().float(), 1)})
        return self._returns(output) if self._returns else output


WRONG_LOSSES: dict[str, tuple[Callable[[LossOutput], Any], str]] = {
    "tensor": (lambda out: out.total, "a Tensor: give LossOutput(total, metrics)"),
    "vector": (lambda out: LossOutput(out.total[None]), "a total that is no scalar tensor"),
    "loss": (
        lambda out: LossOutput(out.total, {"loss": Mean(out.total, 1)}),
        "a metric 'loss', which is the trainer's own: call it otherwise",
    ),
    "step": (
        lambda out: LossOutput(out.total, {"step": Mean(out.total, 1)}),
        "a metric 'step', which is the trainer's own: call it otherwise",
    ),
    "validation": (
        lambda out: LossOutput(out.total, {"eval_x": Mean(out.total, 1)}),
        "a metric 'eval_x', which is the trainer's own: call it otherwise",
    ),
    "float": (
        lambda out: LossOutput(out.total, {"x": 0.5}),  # type: ignore[dict-item]
        "a metric 'x' that is no mean: give Mean(sum, count), the sum a scalar tensor",
    ),
    "no tensor": (
        lambda out: LossOutput(out.total, {"x": Mean(0.5, 1)}),  # type: ignore[arg-type]
        "a metric 'x' that is no mean: give Mean(sum, count), the sum a scalar tensor",
    ),
}


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_a_loss_that_gives_something_else_is_told(tiny_model: Path, tmp_path: Path, name: str) -> None:
    returns, told = WRONG_LOSSES[name]
    with pytest.raises(LmflowError) as caught:
        train(_job(tiny_model, tmp_path / "a", _SETTINGS), _Told(returns))
    assert str(caught.value) == f"the loss _Told returned {told}"


class _Sgd(AdamW):
    """Plain descent, over groups made in some way."""

    def __init__(self, made: Callable[[list[dict[str, Any]]], Any]) -> None:
        super().__init__()
        self._made = made
        self.used: list[bool] = []

    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> Any:
        return self._made(torch_groups(groups, settings))

    def use_weights(self, optimizer: torch.optim.Optimizer, *, training: bool) -> None:
        self.used.append(training)


WRONG_OPTIMIZERS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "none": (lambda groups: None, "the optimizer made is a NoneType, not a torch.optim.Optimizer"),
    "some": (
        lambda groups: torch.optim.SGD(groups[1:]),
        "the optimizer SGD updates 5 of 20 parameters that train and 0 others: "
        "make it of torch_groups(groups, settings)",
    ),
}


@pytest.mark.parametrize("name", WRONG_OPTIMIZERS)
def test_an_optimizer_of_something_else_is_told(tiny_model: Path, tmp_path: Path, name: str) -> None:
    made, told = WRONG_OPTIMIZERS[name]
    job = make_job(tiny_model, tmp_path / "a", _SETTINGS, _rows(), optimizer=_Sgd(made))
    with pytest.raises(LmflowError) as caught:
        SftObjective().train(job)
    assert str(caught.value) == told


def test_an_optimizer_sets_the_weights_to_use_around_each_measurement_and_at_the_end(
    tiny_model: Path, tmp_path: Path
) -> None:
    optimizer = _Sgd(lambda groups: torch.optim.SGD(groups))
    settings = dataclasses.replace(_SETTINGS, epochs=2)
    SftObjective().train(
        make_job(tiny_model, tmp_path / "a", settings, _rows(), optimizer=optimizer, validation=_rows(3))
    )
    assert optimizer.used == [False, True, False, True, False]


def test_a_loss_that_is_no_number_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    job = _job(tiny_model, tmp_path / "a", dataclasses.replace(_SETTINGS, epochs=2))
    with torch.no_grad():
        job.model.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(LmflowError, match=r"the loss is nan at step 1: lower --lr"):
        SftObjective().train(job)


def test_weights_of_half_precision_train_in_float32(tiny_model: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(_SETTINGS, lr=1e-5, epochs=3)
    job = make_job(tiny_model, tmp_path / "a", settings, _rows(), dtype="bfloat16")
    before = _weights(job)
    report = SftObjective().train(job)
    whole = SftObjective().train(make_job(tiny_model, tmp_path / "b", settings, _rows()))
    assert (job.model.plan.dtype, job.model.plan.compute_dtype) == ("float32", "bfloat16")
    for name, tensor in _weights(job).items():
        # Such a step is lost on a weight in bfloat16, which has three significant digits.
        assert tensor.dtype == torch.float32
        assert not torch.equal(tensor, before[name]), name
    ours, theirs = (each.training["loss"][0].value for each in (report, whole))
    assert ours == pytest.approx(theirs, rel=2e-2)
    assert ours != theirs
    destination = Destination(tmp_path)
    job.tuner.save(job.model, destination)
    saved = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


@pytest.mark.parametrize(("warmup", "moves"), [(None, True), (0, True), (3, False)])
def test_warm_up_steps_count_in_the_place_of_a_ratio(
    tiny_model: Path, tmp_path: Path, warmup: int | None, moves: bool
) -> None:
    settings = dataclasses.replace(
        _SETTINGS, warmup_steps=warmup, lr_scheduler_type="constant_with_warmup", max_steps=1
    )
    job = _job(tiny_model, tmp_path / "checkpoints", settings)
    before = {name: weights.clone() for name, weights in _weights(job).items()}
    SftObjective().train(job)  # the first of some steps has a learning rate of zero
    assert any(not torch.equal(weights, before[name]) for name, weights in _weights(job).items()) is moves
