"""Commands of plugins that are ``lmflow finetune`` with defaults of their own, and refusals before anything heavy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lmflow_core.plugins import discovery
from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]

PLUGIN = """
import dataclasses

from lmflow_core.api import CommandSpec, ModelError, ObjectiveSpec, Quantization, TunerSpec, hookimpl

PRESET = {"objective": "picky", "tuner": "mild", "max_steps": 3}
ODD = ["objective"]

def _command(name, attribute):
    return CommandSpec(name=name, target=f"{__name__}:{attribute}", summary=f"Runs {name}.", finetunes=True)

@hookimpl
def lmflow_register_commands():
    return [_command("train-so", "PRESET"), _command("odd", "ODD")]

@hookimpl
def lmflow_register_tuners():
    for name in ("Mild", "Heavy"):
        yield TunerSpec(name=name.lower(), target=f"{__name__}:{name}", summary="Refuses nothing.")

@hookimpl
def lmflow_register_objectives():
    for name in ("Picky", "Planless", "Silent"):
        yield ObjectiveSpec(name=name.lower(), target=f"{__name__}:{name}", summary="Is odd.", examples=("text",),
                            tasks=("causal", "regression"))

class Mild:
    def __init__(self, options):
        pass

    def plan(self, plan):
        return dataclasses.replace(plan, dtype="float32", compute_dtype="bfloat16")

    def check(self, model): ...
    def prepare(self, model, seed): ...
    def parameter_groups(self, model): ...
    def callbacks(self, model, seed): ...
    def reference(self, model): ...
    def save(self, model, destination): ...
    def attach(self, model, folder): ...
    def base_reference(self, folder): ...
    def base_plan(self, folder, plan): ...

class Heavy(Mild):
    def plan(self, plan):
        return dataclasses.replace(plan, quantization=Quantization("nf3"))

class Picky:
    def __init__(self, options):
        pass

    def plan(self, plan):
        return dataclasses.replace(plan, task="regression")

    def check(self, setup):
        plan = setup.model.plan
        asked = f"{plan.task} in {plan.dtype}, computed in {plan.compute_dtype} with {plan.attention} on {plan.device}"
        raise ModelError(f"{type(setup.tuner).__name__} with {setup.model.context_length} positions, {asked}")

    def train(self, job): ...

class Silent(Picky):
    def plan(self, plan):
        return plan

    def check(self, setup): ...

class Planless(Picky):
    def plan(self, plan): ...
"""


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, install_plugin: Callable[..., EntryPoint]) -> None:
    """A plugin with such a command is installed beside the official ones."""
    entries = [*discovery.installed_entry_points(), install_plugin("so", PLUGIN)]
    monkeypatch.setattr(discovery, "installed_entry_points", lambda: entries)


@pytest.mark.usefixtures("plugin")
def test_its_help_is_that_of_finetune_under_its_own_name(lmflow_cli: Cli) -> None:
    told = lmflow_cli("train-so", "--help").stdout
    assert told.startswith("Usage: lmflow train-so [RUN.yaml] [OPTIONS]\n")
    assert "Does what lmflow finetune does with --objective picky --tuner mild --max-steps 3." in " ".join(told.split())
    assert "--pack-length" in told


@pytest.mark.usefixtures("plugin")
def test_its_values_hold_until_others_are_given(lmflow_cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    asked = ("train-so", "--model", tiny_model, "--dataset", tmp_path / "none.json", "--output", tmp_path / "out")
    refused = lmflow_cli(*asked)
    assert refused.status == 2
    # The data, which is not there, is not read.
    assert "error: Mild with 256 positions" in refused.stderr
    assert "FullTuner with 256 positions" in lmflow_cli(*asked, "--tuner", "full").stderr
    run_file = tmp_path / "run.yaml"
    run_file.write_text("objective: sft\ntuner: full\n", encoding="utf-8")
    assert "none.json" in lmflow_cli(*asked, run_file).stderr


@pytest.mark.usefixtures("plugin")
def test_a_check_sees_what_everybody_asked_of_the_weights(lmflow_cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    asked = ("train-so", "--model", tiny_model, "--dataset", tmp_path / "none.json", "--output", tmp_path / "out")
    flags = ("--device", "cpu", "--position-scaling", "linear", "--position-scaling-factor", "2")
    assert (
        "error: Mild with 512 positions, regression in float32, computed in bfloat16 with lmflow_packed on cpu\n"
        in lmflow_cli(*asked, *flags).stderr
    )
    refused = lmflow_cli(*asked, "--tuner", "heavy").stderr
    assert f"error: {tiny_model}: weights cannot be loaded as nf3; the forms are nf4" in refused


@pytest.mark.usefixtures("plugin")
def test_an_objective_that_returns_nothing_is_told(
    lmflow_cli: Cli, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    asked = ("finetune", "--model", tiny_model, "--dataset", write_rows([{"text": "hello"}]), "--device", "cpu")
    for name, told in (
        ("planless", "fake_lmflow_so.Planless.plan() returned a NoneType, where a LoadPlan is needed"),
        ("silent", "fake_lmflow_so.Silent.train() returned a NoneType, where a TrainingReport is needed"),
    ):
        refused = lmflow_cli(*asked, "--objective", name, "--output", tmp_path / "out")
        assert (refused.status, refused.stderr.splitlines()[-1]) == (2, f"lmflow: error: {told}")
        assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("plugin")
def test_a_target_that_is_no_dictionary_is_an_error(lmflow_cli: Cli) -> None:
    assert "command 'odd': its target fake_lmflow_so:ODD is no dictionary" in lmflow_cli("odd").stderr


@pytest.mark.usefixtures("plugin")
def test_an_unknown_option_is_told_under_its_name(lmflow_cli: Cli) -> None:
    assert "unknown option --nonsense of 'lmflow train-so'" in lmflow_cli("train-so", "--nonsense", "1").stderr
