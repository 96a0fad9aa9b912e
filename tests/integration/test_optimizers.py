"""Optimizers of lmflow-optimizers with tuners of other plugins, and on the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.api import IGNORE, EncodedExample, OptimizerSpec, TrainingSettings, TunerSpec
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_lisa.options import LisaOptions
from lmflow_lora.options import LoraOptions
from lmflow_transformers.training.sft import SftObjective

# With this seed a layer that trains at first rests from step 2 on, in the checkpoint of step 3, and comes back.
SETTINGS = TrainingSettings(
    lr=1e-2, batch_size=2, epochs=2, warmup_ratio=0.0, logging_steps=1, save_steps=3, save_total_limit=9, seed=10
)
TUNERS: dict[str, Any] = {
    "lora": LoraOptions(lora_r=4),
    "lisa": LisaOptions(lisa_activated_layers=1, lisa_interval_steps=2),
    "lisa offload": LisaOptions(lisa_activated_layers=1, lisa_interval_steps=2, lisa_inactive_state="offload"),
}


OPTIONS = {"galore": {"galore_rank": 4, "galore_interval_steps": 2}}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model whose matrices are large enough for state in eight bits."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    return make_tiny_model(folder, layers=3, hidden_size=64, intermediate_size=128)


def _rows() -> Sequence[EncodedExample]:
    return [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 11)]


def _trained(model: Path, folder: Path, tuner: str, name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    catalogue = Catalogue.discover()
    found = catalogue.of(OptimizerSpec).find(name).spec
    settings = dataclasses.replace(SETTINGS, lr=found.learning_rate or SETTINGS.lr)
    job = make_job(
        model,
        folder,
        settings,
        _rows(),
        tuner=catalogue.of(TunerSpec).load(tuner.split()[0])(TUNERS[tuner]),
        optimizer=catalogue.of(OptimizerSpec).load(name)(
            found.options(**OPTIONS.get(name, {})) if found.options else None
        ),
    )
    report = SftObjective().train(job)
    return report, {key: value.clone() for key, value in job.model.network.state_dict().items()}


@pytest.mark.parametrize("name", ["adabelief", "muon", "adamw_schedule_free"])
def test_adapters_learn_and_resume(tiny_model: Path, tmp_path: Path, name: str) -> None:
    _check_resumed(tiny_model, tmp_path, "lora", name)


@pytest.mark.parametrize("tuner", ["lisa", "lisa offload"])
@pytest.mark.parametrize("name", ["adabelief", "adagrad", "muon", "galore", "sophia", "adamw_8bit"])
def test_layers_that_take_turns_learn_and_resume(wide_model: Path, tmp_path: Path, tuner: str, name: str) -> None:
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    _check_resumed(wide_model, tmp_path, tuner, name)


def _check_resumed(model: Path, folder: Path, tuner: str, name: str) -> None:
    report, weights = _trained(model, folder / "c", tuner, name)
    for later in ("checkpoint-6", "checkpoint-8"):
        shutil.rmtree(folder / "c" / later, ignore_errors=True)
    again, resumed = _trained(model, folder / "c", tuner, name)
    assert again.training == report.training
    assert {key for key, value in weights.items() if not torch.equal(value, resumed[key])} == set()
    losses = [point.value for point in report.training["loss"]]
    assert min(losses[1:]) < losses[0]


def test_the_rate_is_the_optimizers_where_it_has_one(
    tiny_model: Path, tmp_path: Path, write_rows: Callable[..., Path], lmflow_cli: Callable[..., Any]
) -> None:
    data = write_rows([{"text": "one two three four"}] * 4)
    rates = {}
    for given in (("sgd",), ("lion",), ("sgd", "--lr", "0.25")):
        output = tmp_path / "-".join(given).replace("--", "")
        flags = ("--model", tiny_model, "--dataset", data, "--output", output, "--max-steps", "1")
        lmflow_cli("finetune", *flags, "--optimizer", *given)
        rates[given] = json.loads((output / "run.json").read_text(encoding="utf-8"))["learning_rate"]
    assert rates == {("sgd",): 1e-2, ("lion",): 2e-5, ("sgd", "--lr", "0.25"): 0.25}
