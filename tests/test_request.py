"""From values to a checked request: what is chosen, whose options join in, and what a run file holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.config.request import resolve
from lmflow_core.config.run_file import read_run_file
from lmflow_core.config.schema import FINETUNE, GENERATE, Schema
from lmflow_core.contracts.attention import AttentionSpec
from lmflow_core.contracts.decoder import DecoderSpec
from lmflow_core.contracts.engine import EngineSpec
from lmflow_core.contracts.objective import ObjectiveSpec
from lmflow_core.contracts.optimizer import OptimizerSpec
from lmflow_core.contracts.settings import ModelSettings, TrainingSettings
from lmflow_core.contracts.spec import Spec
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import NameConflictError, OptionError, RequestError, UnknownNameError
from lmflow_core.options import option
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.recipe import _without_effect


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    lora_r: int = option(8, help="Rank.", minimum=1)
    lora_target_modules: tuple[str, ...] = option(("all-linear",), help="Modules.")


@dataclass(frozen=True, kw_only=True)
class ClashingOptions:
    lora_r: int = option(1, help="Rank of something else.")


def _spec(spec_class: type[Spec], name: str, **more: Any) -> Spec:
    return spec_class(name=name, target=f"nowhere:{name.title()}", summary="A component.", **more)


def _record(name: str, *specs: Spec) -> PluginRecord:
    return PluginRecord(name, f"lmflow-{name}", "1.0", specs=specs)


RUNTIME = _record(
    "runtime",
    _spec(TunerSpec, "full"),
    _spec(ObjectiveSpec, "sft", examples=("text",)),
    _spec(ObjectiveSpec, "ranks", examples=("text",), options=ClashingOptions),
    _spec(AttentionSpec, "sdpa"),
    _spec(OptimizerSpec, "adamw"),
    _spec(EngineSpec, "local"),
    _spec(EngineSpec, "many", environment=("LMFLOW_TEST_RANK", "LMFLOW_TEST_SIZE")),
    _spec(DecoderSpec, "sampling"),
)
LORA = _record("lora", _spec(TunerSpec, "lora", options=LoraOptions, aliases=("low-rank",)))
RIVAL = _record("rival", _spec(TunerSpec, "lora"))
CATALOGUE = Catalogue(PluginSet((LORA, RUNTIME)))
NEEDED: dict[str, object] = {"model": "m", "dataset": "d.json", "output": "out"}


def _refused(values: dict[str, object], catalogue: Catalogue = CATALOGUE, schema: Schema = FINETUNE) -> str:
    with pytest.raises(OptionError) as raised:
        resolve(schema, values, catalogue)
    return str(raised.value)


def test_defaults_choose_and_values_are_checked() -> None:
    request = resolve(FINETUNE, {**NEEDED, "max_steps": "3", "lr": "1e-3"}, CATALOGUE)
    assert {selector: component.name for selector, component in request.components.items()} == {
        "objective": "sft",
        "tuner": "full",
        "optimizer": "adamw",
        "attention": "sdpa",
        "engine": "local",
    }
    assert request.components["tuner"].options is None
    assert (request.get(TrainingSettings).max_steps, request.get(TrainingSettings).lr) == (3, 1e-3)
    assert request.get(ModelSettings).model == "m"


def test_the_options_of_a_chosen_component_join_in() -> None:
    request = resolve(FINETUNE, {**NEEDED, "tuner": "low-rank", "lora_r": "16"}, CATALOGUE)
    assert request.components["tuner"].name == "lora"
    assert request.components["tuner"].options == LoraOptions(lora_r=16)


def test_an_option_of_a_component_that_is_not_chosen_tells_whose_it_is() -> None:
    message = "--lora-target-modules belongs to tuner 'lora': add --tuner lora"
    assert _refused({**NEEDED, "lora_target_modules": "q"}) == message


def test_an_unknown_option_gets_a_suggestion() -> None:
    expected = "unknown option --max-step of 'lmflow finetune'. Did you mean 'max_steps'?"
    assert _refused({**NEEDED, "max_step": 1}) == expected
    assert _refused({**NEEDED, "xyzzy": 1}) == "unknown option --xyzzy of 'lmflow finetune'."
    assert _refused({"model": "m", "prompt": "p", "epochs": 1}, schema=GENERATE) == (
        "unknown option --epochs of 'lmflow generate'."
    )


def test_messages_begin_with_where() -> None:
    with pytest.raises(OptionError, match=r"^run\.yaml: unknown option --xyzzy of"):
        resolve(FINETUNE, {"xyzzy": 1}, CATALOGUE, "run.yaml: ")
    with pytest.raises(OptionError, match=r"^run\.yaml: --lora-r: 0 is below the smallest value allowed, 1$"):
        resolve(FINETUNE, {**NEEDED, "tuner": "lora", "lora_r": 0}, CATALOGUE, "run.yaml: ")
    with pytest.raises(OptionError, match=r"^run\.yaml: --model is required: "):
        resolve(FINETUNE, {}, CATALOGUE, "run.yaml: ")


def test_a_choice_may_not_be_empty() -> None:
    assert _refused({**NEEDED, "tuner": None}) == "--tuner: a value is missing"
    with pytest.raises(UnknownNameError, match=r"^unknown tuner ''\. Known tuners: full \(runtime\), lora \(lora\)\.$"):
        resolve(FINETUNE, {**NEEDED, "tuner": ""}, CATALOGUE)


def test_two_components_whose_options_clash_cannot_be_combined() -> None:
    with pytest.raises(RequestError) as raised:
        resolve(FINETUNE, {**NEEDED, "tuner": "lora", "objective": "ranks"}, CATALOGUE)
    assert str(raised.value) == (
        "--lora-r is an option of both ClashingOptions and LoraOptions; these components cannot be combined"
    )
    assert resolve(FINETUNE, {**NEEDED, "objective": "ranks"}, CATALOGUE).components["objective"].name == "ranks"


@pytest.mark.parametrize("given", [{}, {"engine": None}, {"engine": "none"}])
def test_the_engine_is_that_of_the_environment_when_none_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, object]
) -> None:
    monkeypatch.setenv("LMFLOW_TEST_RANK", "0")
    assert resolve(FINETUNE, {**NEEDED, **given}, CATALOGUE).components["engine"].name == "local"
    monkeypatch.setenv("LMFLOW_TEST_SIZE", "2")
    assert resolve(FINETUNE, {**NEEDED, **given}, CATALOGUE).components["engine"].name == "many"
    asked = resolve(FINETUNE, {**NEEDED, "engine": "local"}, CATALOGUE)
    assert asked.components["engine"].name == "local"


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    count: int | None = option(None, help="How many.", affects_result=False)
    hosts: int | None = option(None, help="Where.", affects_result=False)


@dataclass(frozen=True, kw_only=True)
class SpreadOptions(StartOptions):
    spread: str | None = option(None, help="How far.")


STARTING = _record(
    "starting",
    _spec(EngineSpec, "plain", options=StartOptions, chosen_by=("count", "hosts")),
    _spec(EngineSpec, "spread", options=SpreadOptions, chosen_by="spread"),
)
CATALOGUE_OF_STARTING = Catalogue(PluginSet((RUNTIME, STARTING)))


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ({"count": 2}, "plain"),
        ({"hosts": "2", "count": None}, "plain"),
        ({"spread": "far"}, "spread"),
        ({"spread": "far", "count": 2}, "spread"),
        ({"count": 2, "engine": "spread"}, "spread"),
    ],
)
def test_options_choose_the_engine_and_shared_ones_leave_it_to_the_others(
    given: dict[str, object], engine: str
) -> None:
    request = resolve(FINETUNE, {**NEEDED, **given}, CATALOGUE_OF_STARTING)
    assert request.components["engine"].name == engine


def test_options_that_affect_no_result_are_left_out_of_the_recipe() -> None:
    request = resolve(FINETUNE, {**NEEDED, "spread": "far"}, CATALOGUE_OF_STARTING)
    assert _without_effect(request) == {"count", "hosts"}


def test_an_option_of_several_components_names_all_of_them() -> None:
    message = "--count belongs to engine 'plain' or 'spread': add --engine plain or --engine spread"
    values: dict[str, object] = {**NEEDED, "count": 2, "engine": "local"}
    assert _refused(values, CATALOGUE_OF_STARTING) == message


def test_each_of_several_launchers_chooses_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    many = _spec(EngineSpec, "any", environment=("LMFLOW_TEST_A",), environments=(("LMFLOW_TEST_B", "LMFLOW_TEST_C"),))
    catalogue = Catalogue(PluginSet((RUNTIME, _record("more", many))))
    monkeypatch.setenv("LMFLOW_TEST_B", "0")
    assert resolve(FINETUNE, NEEDED, catalogue).components["engine"].name == "local"
    monkeypatch.setenv("LMFLOW_TEST_C", "0")
    assert resolve(FINETUNE, NEEDED, catalogue).components["engine"].name == "any"


def test_an_environment_that_fits_two_engines_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFLOW_TEST_RANK", "0")
    monkeypatch.setenv("LMFLOW_TEST_SIZE", "2")
    thief = _record("thief", _spec(EngineSpec, "mine", environment=("LMFLOW_TEST_RANK",)))
    with pytest.raises(RequestError) as raised:
        resolve(FINETUNE, NEEDED, Catalogue(PluginSet((LORA, RUNTIME, thief))))
    assert str(raised.value) == (
        "the variables of the environment fit several engines; choose one: --engine runtime:many or --engine thief:mine"
    )


def test_resolved_values_make_the_same_request_again() -> None:
    given: dict[str, object] = {**NEEDED, "tuner": "lora", "lora_r": 4, "dataset": ["a.json", "b"], "seed": 7}
    request = resolve(FINETUNE, given, CATALOGUE)
    values = request.values()
    assert {name: values[name] for name in ("tuner", "engine", "lora_r", "lora_target_modules", "dataset")} == {
        "tuner": "lora",
        "engine": "local",
        "lora_r": 4,
        "lora_target_modules": ["all-linear"],
        "dataset": ["a.json", "b"],
    }
    again = resolve(FINETUNE, json.loads(json.dumps(values)), CATALOGUE)
    assert again.values() == values
    assert again.components == request.components


def test_a_contested_choice_is_written_so_that_it_can_be_made_again() -> None:
    catalogue = Catalogue(PluginSet((LORA, RIVAL, RUNTIME)))
    with pytest.raises(NameConflictError, match=r"^tuner 'lora' is provided by 'lora' \(lmflow-lora 1\.0\) and"):
        resolve(FINETUNE, {**NEEDED, "tuner": "lora"}, catalogue)
    values = resolve(FINETUNE, {**NEEDED, "tuner": "lora:low-rank"}, catalogue).values()
    assert values["tuner"] == "lora:lora"
    assert resolve(FINETUNE, values, catalogue).components["tuner"].provided.plugin is LORA


def test_a_run_file_maps_options_to_values(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: m\nmax-steps: 3\nlora_target_modules: [q, v]\nlr: 1e-3\ntemplate:\n", encoding="utf-8")
    assert read_run_file(path) == {
        "model": "m",
        "max_steps": 3,
        "lora_target_modules": ["q", "v"],
        "lr": "1e-3",
        "template": None,
    }


def test_the_record_of_a_run_is_a_run_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"schema": 1, "options": {"model": "m", "lr": 1e-8}, "steps": 3}), encoding="utf-8")
    values = read_run_file(path)
    assert values["model"] == "m"
    assert float(str(values["lr"])) == 1e-8
    assert set(values) == {"model", "lr"}


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "- a: 1"])
def test_a_run_file_must_hold_a_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError) as raised:
        read_run_file(path)
    assert str(raised.value) == f"{path}: a run file maps option names to values"


def test_a_run_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    with pytest.raises(RequestError) as raised:
        read_run_file(path)
    assert str(raised.value) == f"{path}: the run file cannot be read: No such file or directory"
    path.write_text("model: [a", encoding="utf-8")
    with pytest.raises(RequestError, match=r"run\.yaml: broken YAML: .*line 1, column 10"):
        read_run_file(path)
    path.write_bytes(b"model: \xff")
    with pytest.raises(RequestError, match=r"run\.yaml: not UTF-8 \(byte 7\)"):
        read_run_file(path)
