"""LISA: what is sampled, what changes, what the optimizer holds, and that a resumed run goes on exactly."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from lmflow_core.api import (
    IGNORE,
    EncodedExample,
    ModelError,
    ModelSettings,
    ParameterGroup,
    Quantization,
    RequestError,
    TrainingCallback,
    TrainingSettings,
    TrainingState,
)
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_lisa.layers import always_on, check_counts, find_layers, sample_layers
from lmflow_lisa.options import LisaOptions
from lmflow_lisa.switching import LayerSwitch
from lmflow_lisa.tuner import LisaTuner
from lmflow_transformers.api import AdamW, torch_groups
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.training.sft import SftObjective

LAYERS = 6
SETTINGS = TrainingSettings(lr=1e-2, batch_size=2, epochs=8, weight_decay=0.1, warmup_ratio=0.0, logging_steps=1)


@pytest.fixture(scope="session")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("six") / "model", layers=LAYERS)


def _rows() -> Sequence[EncodedExample]:
    return [single(list(range(n, n + 12)), [IGNORE] * 4 + list(range(n + 4, n + 12))) for n in range(3, 11)]


class _Watch(TrainingCallback):
    """Remembers, after each step, the weights of every layer and what the optimizer holds."""

    def __init__(self, model: CausalModel, switch: LayerSwitch) -> None:
        self._network, self._switch = model.base, switch
        self._started = 0
        self.active: list[tuple[int, ...]] = []
        self.layers: list[list[torch.Tensor]] = []
        self.state: list[int] = []
        self.allowed: list[int] = []

    def on_start(self, state: TrainingState) -> None:
        self._started = state.step

    def on_step(self, state: TrainingState) -> None:
        if state.step > self._started:
            self._remember(state.optimizer)

    def on_end(self, state: TrainingState) -> None:
        self._remember(state.optimizer)

    def _remember(self, optimizer: Any) -> None:
        layers = find_layers(self._network, None)
        self.active.append(self._switch.active)
        self.layers.append([torch.cat([p.detach().flatten() for p in layer.parameters()]) for layer in layers])
        held = [tensor for kept in optimizer.state.values() for tensor in kept.values() if tensor.dim()]
        self.state.append(sum(tensor.numel() for tensor in held))
        outside = sum(p.numel() for group in always_on(self._network, layers).values() for p in group)
        inside = sum(p.numel() for number in self._switch.active for p in layers[number].parameters())
        self.allowed.append(2 * (outside + inside))


class _WatchedTuner(LisaTuner):
    watch: _Watch

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        (switch,) = super().callbacks(model, seed)
        assert isinstance(switch, LayerSwitch)
        self.watch = _Watch(model, switch)
        return [self.watch, switch]  # the watch looks before the switch does anything at a step


def _train(folder: Path, checkpoints: Path, settings: TrainingSettings, **options: Any) -> tuple[_Watch, Any]:
    tuner = _WatchedTuner(LisaOptions(**{"lisa_interval_steps": 2, **options}))
    job = make_job(folder, checkpoints, settings, _rows(), tuner=tuner)
    report = SftObjective().train(job)
    return tuner.watch, (report, job.model.base.state_dict())


def test_only_sampled_layers_change_and_only_they_have_state(six_layers: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=30)
    watch, _ = _train(six_layers, tmp_path / "c", settings)
    assert len(watch.active) == 120
    for step in range(1, len(watch.active)):
        assert (watch.active[step] == watch.active[step - 1]) or step % 2 == 0
        for number in range(LAYERS):
            same = torch.equal(watch.layers[step][number], watch.layers[step - 1][number])
            assert same == (number not in watch.active[step]), (step, number)
    assert watch.state == watch.allowed
    assert set().union(*watch.active) == set(range(LAYERS))


@pytest.mark.parametrize("state", ["drop", "offload"])
def test_a_resumed_run_is_the_uninterrupted_one(six_layers: Path, tmp_path: Path, state: str) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=4, save_steps=5, save_total_limit=9, lr_scheduler_type="cosine")
    whole, (report, weights) = _train(six_layers, tmp_path / "c", settings, lisa_inactive_state=state)
    for later in ("checkpoint-10", "checkpoint-15", "checkpoint-16"):
        shutil.rmtree(tmp_path / "c" / later, ignore_errors=True)
    resumed, (again, resumed_weights) = _train(six_layers, tmp_path / "c", settings, lisa_inactive_state=state)
    assert len(resumed.active) == 11
    assert resumed.active == whole.active[5:]
    assert again.training == report.training
    for name, tensor in weights.items():
        assert torch.equal(tensor, resumed_weights[name]), name


def test_offloaded_state_comes_back(six_layers: Path, tmp_path: Path) -> None:
    dropped, _ = _train(six_layers, tmp_path / "a", SETTINGS)
    kept, _ = _train(six_layers, tmp_path / "b", SETTINGS, lisa_inactive_state="offload")
    assert kept.active == dropped.active
    assert kept.state == kept.allowed
    assert not torch.equal(torch.stack(kept.layers[-1]), torch.stack(dropped.layers[-1]))


class _Counted(torch.optim.SGD):
    """Descent that counts the steps of each parameter in a plain number, and goes further in each."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["count"] = state.get("count", 0) + 1
                    state["sum"] = state.get("sum", torch.zeros_like(parameter)) + parameter.grad
                    parameter.data.sub_(state["sum"], alpha=1e-2 * state["count"])


class _CountedOptimizer(AdamW):
    def make(self, groups: Sequence[ParameterGroup], settings: TrainingSettings) -> Any:
        return _Counted(torch_groups(groups, settings))


def test_offloaded_state_may_hold_plain_numbers(six_layers: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=4, save_steps=5, save_total_limit=9)
    runs = []
    for _ in range(2):
        tuner = LisaTuner(LisaOptions(lisa_inactive_state="offload", lisa_interval_steps=1))
        job = make_job(six_layers, tmp_path / "c", settings, _rows(), tuner=tuner, optimizer=_CountedOptimizer())
        SftObjective().train(job)
        runs.append({name: tensor.clone() for name, tensor in job.model.base.state_dict().items()})
        for later in ("checkpoint-10", "checkpoint-15", "checkpoint-16"):
            shutil.rmtree(tmp_path / "c" / later, ignore_errors=True)
    for name, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][name]), name


def test_all_layers_active_is_full_fine_tuning(six_layers: Path, tmp_path: Path) -> None:
    _, (report, weights) = _train(
        six_layers, tmp_path / "a", SETTINGS, lisa_activated_layers=LAYERS, lisa_interval_steps=1000
    )
    job = make_job(six_layers, tmp_path / "b", SETTINGS, _rows())
    full = SftObjective().train(job)
    assert full.training == report.training
    for name, tensor in job.model.base.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_samples_depend_on_seed_and_number_alone_and_are_uniform() -> None:
    assert [sample_layers(1, n, 2, 8) for n in range(20)] == [sample_layers(1, n, 2, 8) for n in range(20)]
    assert [sample_layers(1, n, 2, 8) for n in range(20)] != [sample_layers(2, n, 2, 8) for n in range(20)]
    counts = Counter(layer for n in range(4000) for layer in sample_layers(7, n, 2, 8))
    statistic = sum((counts[layer] - 1000) ** 2 / 1000 for layer in range(8))
    assert statistic < 24.32  # chi-square, 7 degrees of freedom, p = 0.001
    assert all(len(set(sample_layers(7, n, 3, 8))) == 3 for n in range(100))


def test_weights_are_followed() -> None:
    sampled = {sample_layers(0, n, 2, 4, (0.0, 1.0, 1.0, 2.0)) for n in range(50)}
    assert sampled == {(1, 2), (1, 3), (2, 3)}


def test_parts_can_be_kept(six_layers: Path, tmp_path: Path) -> None:
    options = {"lisa_freeze_embeddings": True, "lisa_freeze_norm": True, "lisa_freeze_head": True}
    watch, (_, weights) = _train(six_layers, tmp_path / "c", SETTINGS, **options)
    original = AutoModelForCausalLM.from_pretrained(six_layers).state_dict()
    changed = {name for name, tensor in original.items() if not torch.equal(tensor, weights[name])}
    sampled = set().union(*watch.active)
    assert {name.split(".layers.")[0] for name in changed} == {"model"}
    assert {int(name.split(".")[2]) for name in changed} == sampled


def test_layers_are_found_in_any_decoder() -> None:
    llama = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2)
    )
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=32, n_embd=16, n_layer=4, n_head=2))
    assert find_layers(llama, None) is llama.model.layers
    assert find_layers(gpt2, None) is gpt2.transformer.h
    assert find_layers(gpt2, "transformer.h") is gpt2.transformer.h
    outside = always_on(gpt2, gpt2.transformer.h)
    assert outside["embeddings"] == [gpt2.transformer.wte.weight]
    assert outside["head"] == []
    assert len(outside["norm"]) == 3


def test_wrong_requests_are_clear() -> None:
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(RequestError, match=r"--lisa-layers-attribute model\.layers: .*no attribute 'model'"):
        find_layers(gpt2, "model.layers")
    with pytest.raises(RequestError, match="transformer is a GPT2Model, not a list of layers"):
        find_layers(gpt2, "transformer")
    with pytest.raises(RequestError, match="--lisa-activated-layers 3: the model has 2 layers"):
        check_counts(2, 3, ())
    with pytest.raises(RequestError, match="3 weights for 2 layers"):
        check_counts(2, 1, (1.0, 1.0, 1.0))
    with pytest.raises(RequestError, match="fewer than 2 layers have a weight above 0"):
        check_counts(2, 2, (1.0, 0.0))


def test_what_two_parameters_share_is_offloaded_whole(tmp_path: Path) -> None:
    """The tables of 8-bit optimizers are one tensor for all parameters, which safetensors does not hold twice."""
    switch = LayerSwitch(nn.ModuleList(), LisaOptions(), 0)
    table = torch.arange(4.0)
    switch._offloaded = {1: {"map": table, "step": 3}, 2: {"map": table, "mean": torch.eye(3)[:, :2]}}
    switch.save(tmp_path)
    read = LayerSwitch(nn.ModuleList(), LisaOptions(), 0)
    read._load_offloaded(tmp_path)
    assert read._offloaded[1]["step"] == 3
    assert all(torch.equal(read._offloaded[number]["map"], table) for number in (1, 2))
    assert torch.equal(read._offloaded[2]["mean"], torch.eye(3)[:, :2])


def test_quantised_weights_are_refused(six_layers: Path) -> None:
    model = CausalModelLoader().open(str(six_layers), ModelSettings(model=str(six_layers), device="cpu"))
    model.plan = dataclasses.replace(model.plan, quantization=Quantization("nf4"))
    with pytest.raises(ModelError, match=r"has quantised weights \(nf4\), which cannot train: --tuner qlora"):
        LisaTuner().check(model)


def _opened(folder: Path, **plan: Any) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.plan = dataclasses.replace(model.plan, **plan)
    return model


def test_each_layer_is_frozen_as_a_whole_where_an_engine_keeps_groups_in_one_piece(six_layers: Path) -> None:
    model = _opened(six_layers, sharded_state=True)
    model.load()
    tuner = LisaTuner()
    tuner.prepare(model, 0)
    groups = tuner.parameter_groups(model)
    places = [{name.split(".layers.")[-1][:2] if ".layers." in name else "" for name in g.parameters} for g in groups]
    assert all(len(place) == 1 for place in places)
    assert len(groups) == 2 + 2 * LAYERS
    model.plan = dataclasses.replace(model.plan, sharded_state=False)
    of_one_piece = tuner.parameter_groups(model)
    for decays in (True, False):
        named = [{n for g in each if g.decays == decays for n in g.parameters} for each in (groups, of_one_piece)]
        assert named[0] == named[1]


@pytest.mark.parametrize("spread", [{"sharded": True}, {"sharded_state": True}])
def test_state_that_is_spread_is_not_offloaded(spread: dict[str, bool], six_layers: Path) -> None:
    LisaTuner().check(_opened(six_layers, **spread))
    with pytest.raises(RequestError, match="--lisa-inactive-state offload keeps state in each process"):
        LisaTuner(LisaOptions(lisa_inactive_state="offload")).check(_opened(six_layers, **spread))
