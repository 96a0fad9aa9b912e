"""Through the real trainer: each optimizer learns, and a run that goes on is the uninterrupted one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.api import IGNORE, EncodedExample, OptimizerSpec, TrainingSettings
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement
from lmflow_core.testing.jobs import make_job, single
from lmflow_optimizers.plugin import lmflow_register_optimizers
from lmflow_transformers.training.sft import SftObjective

SPECS = {spec.name: spec for spec in lmflow_register_optimizers()}
ON_CPU = [name for name in SPECS if not name.startswith("paged_")]
# Ranks that a tiny model's matrices exceed.
OPTIONS: dict[str, dict[str, Any]] = {
    "galore": {"galore_rank": 4, "galore_interval_steps": 2},
    "apollo": {"apollo_rank": 4, "apollo_interval_steps": 2},
    "sophia": {"sophia_interval_steps": 2},
}
SETTINGS = TrainingSettings(
    lr=1e-2,
    batch_size=2,
    max_steps=6,
    epochs=2,
    weight_decay=0.1,
    warmup_ratio=0.0,
    logging_steps=1,
    save_steps=3,
    save_total_limit=9,
)


def _rows() -> Sequence[EncodedExample]:
    return [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 11)]


def _trained(
    model: Path, folder: Path, name: str, settings: TrainingSettings, validation: Sequence[EncodedExample] | None = None
) -> tuple[Any, dict[str, torch.Tensor]]:
    spec = SPECS[name]
    optimizer = Catalogue.discover().of(OptimizerSpec).load(name)
    options = spec.options(**OPTIONS.get(name, {})) if spec.options else None
    job = make_job(model, folder, settings, _rows(), optimizer=optimizer(options), validation=validation)
    report = SftObjective().train(job)
    return report, {key: value.clone() for key, value in job.model.base.state_dict().items()}


@pytest.mark.parametrize("name", ON_CPU)
def test_a_resumed_run_is_the_uninterrupted_one(tiny_model: Path, tmp_path: Path, name: str) -> None:
    if missing := missing_requirement(SPECS[name]):
        pytest.skip(f"{missing} is not installed")
    settings = dataclasses.replace(SETTINGS, lr=SPECS[name].learning_rate or SETTINGS.lr)
    report, weights = _trained(tiny_model, tmp_path / "c", name, settings)
    shutil.rmtree(tmp_path / "c" / "checkpoint-6")
    again, resumed = _trained(tiny_model, tmp_path / "c", name, settings)
    assert again.training == report.training
    assert {key for key, value in weights.items() if not torch.equal(value, resumed[key])} == set()
    if name != "dummy":
        losses = [point.value for point in report.training["loss"]]
        assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("name", ["adamw_schedule_free", "sgd_schedule_free"])
def test_the_best_weights_are_those_that_were_measured(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """The checkpoint holds the weights that train: those one uses follow from the state beside them."""
    rate = 1.0 if name.startswith("sgd") else 3e-2
    ends = dataclasses.replace(SETTINGS, lr=rate, lr_scheduler_type="constant", max_steps=2, save_steps=None)
    # What is learned makes the tokens of these rows less likely, so that the first measurement is the best.
    others = [single(list(range(n, n + 12))) for n in (40, 60)]
    settings = dataclasses.replace(ends, max_steps=6, eval_steps=2, load_best_model=True)
    report, best = _trained(tiny_model, tmp_path / "best", name, settings, validation=others)
    losses = [point.value for point in report.validation["loss"]]
    assert losses[0] == min(losses)
    assert len(losses) == 3
    _, two = _trained(tiny_model, tmp_path / "two", name, ends)
    assert {key for key, value in two.items() if not torch.equal(value, best[key])} == set()
