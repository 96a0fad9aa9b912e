"""A plan of memory: exact where transformers, torch or a run can say what is right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lmflow_core.api import (
    LmflowError,
    LoadPlan,
    MemoryPlan,
    ModelError,
    ModelSettings,
    Placement,
    PlannedRun,
    TrainingSettings,
)
from lmflow_transformers.api import AdamW, CausalModelLoader, FullTuner, torch_groups
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.planning.ledger import ACTIVATIONS, Ledger
from lmflow_transformers.planning.step import shape_of
from lmflow_transformers.training.sft import SftObjective

_SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
_GPT2 = {"model_type": "gpt2", "vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_SIZES, **_HEADS, "tie_word_embeddings": False},
    "llama, tied": {"model_type": "llama", **_SIZES, **_HEADS, "tie_word_embeddings": True},
    "gpt2, tied": _GPT2,
    "phi": {"model_type": "phi", **_SIZES, "num_attention_heads": 4},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["llama"]))
    return tmp_path


def planned(
    folder: Path,
    tuner: Any = None,
    optimizer: Any = None,
    settings: TrainingSettings | None = None,
    processes: int = 1,
    **places: Any,
) -> MemoryPlan:
    sketch: Any = CausalModelLoader().sketch(str(folder), ModelSettings(model=str(folder), device="cpu"))
    plan = LoadPlan(dtype="float32", device="cpu", attention=SdpaAttention().implementation("cpu"))
    settings = settings or TrainingSettings(lr=1e-3, batch_size=2)
    tuner, optimizer = tuner or FullTuner(), optimizer or AdamW()
    placement = dataclasses.replace(Placement(tuner.plan(plan)), **places)
    run = PlannedRun(tuner, optimizer, SftObjective(), settings, placement, 32, "cpu", processes)
    found: MemoryPlan = sketch.memory(run)
    return found


def part(plan: MemoryPlan, name: str) -> int:
    return sum(each.device for each in plan.parts if each.name == name)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_that_transformers_counts(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path), dtype=torch.float32)
    plan = planned(tmp_path)
    assert plan.parameters == plan.trained == network.num_parameters()
    held = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    assert part(plan, "weights") == 4 * network.num_parameters() + held
    assert part(plan, "optimizer state") == 8 * network.num_parameters()
    assert part(plan, "gradients") == 4 * network.num_parameters()


def test_parts_add_up(folder: Path) -> None:
    plan = planned(folder)
    assert plan.device == sum(each.device for each in plan.parts) > 0


def test_zero_gives_each_process_its_share(folder: Path) -> None:
    whole = planned(folder)
    spread = planned(folder, processes=4, weights=4, gradients=4, state=4, gathered=True, copies=4)
    for name in ("weights", "gradients", "optimizer state"):
        assert part(spread, name) == -(-part(whole, name) // 4)
    assert part(spread, "copies for the update") == whole.trained
    assert part(spread, "gathered layers") > 0


def test_what_is_offloaded_is_in_main_memory(folder: Path) -> None:
    whole, offloaded = planned(folder), planned(folder, state_in_main=True)
    state = next(each for each in offloaded.parts if each.name == "optimizer state")
    assert (state.device, state.main) == (0, part(whole, "optimizer state"))


class _Momentum(AdamW):
    def make(self, groups: Any, settings: TrainingSettings) -> Any:
        return torch.optim.SGD(torch_groups(groups, settings), momentum=0.9)


class _RowsAndColumns(AdamW):
    def make(self, groups: Any, settings: TrainingSettings) -> Any:
        return torch.optim.Adafactor(torch_groups(groups, settings))


class _Elsewhere(AdamW):
    def make(self, groups: Any, settings: TrainingSettings) -> Any:
        raise RuntimeError("no such device")


def test_the_state_of_any_optimizer_is_counted(folder: Path) -> None:
    plan = planned(folder, optimizer=_Momentum())
    assert part(plan, "optimizer state") == 4 * plan.trained


def test_state_by_row_and_column_is_that_of_a_real_step(folder: Path) -> None:
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    optimizer = torch.optim.Adafactor(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    held = sum(value.numel() * value.element_size() for value in tensors if value.numel() > 1)
    assert part(planned(folder, optimizer=_RowsAndColumns()), "optimizer state") == pytest.approx(held, rel=0.02)


def test_state_that_cannot_be_counted_is_assumed_and_told(folder: Path) -> None:
    plan = planned(folder, optimizer=_Elsewhere())
    assert part(plan, "optimizer state") == 8 * plan.trained
    assert any("no such device" in assumption for assumption in plan.assumptions)


class _HeadOnly(FullTuner):
    def prepare(self, model: Any, seed: int) -> None:
        model.network.requires_grad_(False)
        model.network.lm_head.requires_grad_(True)


def test_a_strangers_tuner_is_planned_by_what_it_trains(folder: Path) -> None:
    plan = planned(folder, tuner=_HeadOnly())
    assert plan.trained == 96 * 32
    assert part(plan, "activations") < part(planned(folder), "activations") / 2


def test_recomputed_layers_keep_less(folder: Path) -> None:
    settings = TrainingSettings(lr=1e-3, batch_size=32)
    less = dataclasses.replace(settings, gradient_checkpointing=True)
    kept, recomputed = (part(planned(folder, settings=each), "activations") for each in (settings, less))
    assert recomputed < kept


@pytest.mark.parametrize(
    ("values", "sequences", "passes"),
    [
        ({"batch_size": 4}, (32,) * 4, 1),
        ({"batch_size": 4, "micro_batch_tokens": 64}, (32,) * 2, 2),
        ({"batch_size": 3, "micro_batch_tokens": 16}, (32,), 3),
        ({"batch_size": 2, "pack_length": 96}, (32,) * 6, 1),
        ({"batch_size": 2, "pack_length": 16, "gradient_accumulation_steps": 3}, (16,) * 2, 3),
    ],
)
def test_what_goes_through_at_a_time(values: dict[str, int], sequences: tuple[int, ...], passes: int) -> None:
    shape = shape_of(TrainingSettings(**values), 32, "cpu", alone=True)
    assert (shape.sequences, shape.passes) == (sequences, passes)


def test_a_ledger_knows_what_is_alive_and_was() -> None:
    with Ledger({}, vocabulary=7) as ledger:
        first = torch.zeros(1000)
        second = first.view(10, 100) + 1
        del first
        assert ledger.live[ACTIVATIONS] == second.numel() * 4
    assert ledger.peak[ACTIVATIONS] == 8000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no config.json"),
        ("{", "cannot be read"),
        ("[]", "no model_type"),
        ('{"model_type": "nonesuch"}', "no architecture"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "cannot be opened|no network"),
    ],
)
def test_what_is_no_configuration_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        planned(tmp_path)


def test_a_tuner_that_cannot_train_the_model_says_so(folder: Path) -> None:
    class Refusing(FullTuner):
        def check(self, model: Any) -> None:
            raise ModelError("not this one")

    with pytest.raises(LmflowError, match="not this one"):
        planned(folder, tuner=Refusing())
