"""Each optimizer learns, lets decay what is to decay, and is refused where it cannot work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from pytorch_optimizer.base.optimizer import BaseOptimizer

from lmflow_core.api import OptimizerSpec, ParameterGroup, RequestError, TrainingSettings
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement
from lmflow_optimizers.making import CountedByParameter
from lmflow_optimizers.plugin import lmflow_register_optimizers

SPECS = {spec.name: spec for spec in lmflow_register_optimizers()}
ON_CPU = [name for name in SPECS if not name.startswith("paged_")]
COUNTED = [name for name in ON_CPU if name not in ("dummy", "adamw_8bit", "lion_8bit")]
# What the original LMFlow calls its optimizers.
LMFLOW = (
    "dummy adabelief adabound lars lamb adamax nadam radam adamp sgdp yogi sophia adan adam novograd adadelta adagrad "
    "muon adamw_schedule_free sgd_schedule_free"
)
# Rates with which thirty steps are enough, where the spec has none of its own or one for long runs.
RATES = {
    "adadelta": 10.0,
    "adafactor": 3e-2,
    "adagrad": 3e-2,
    "lamb": 3e-2,
    "lars": 1.0,
    "novograd": 1e-2,
    "radam": 3e-2,
    "sgd": 5e-2,
    "sgd_schedule_free": 0.5,
    "yogi": 3e-2,
}


def made(name: str, groups: Sequence[ParameterGroup], settings: TrainingSettings, **options: Any) -> Any:
    """Return target and optimizer of a name."""
    spec = SPECS[name]
    if missing := missing_requirement(spec):
        pytest.skip(f"{missing} is not installed")
    target = Catalogue.discover().of(OptimizerSpec).load(name)
    component = target(spec.options(**options) if spec.options else None)
    return component, component.make(groups, settings)


def network() -> torch.nn.Module:
    """Return two layers of a regression whose names are those of a language model's."""
    torch.manual_seed(0)
    net = torch.nn.Module()
    net.layers = torch.nn.ModuleList([torch.nn.Linear(6, 16), torch.nn.Linear(16, 4)])
    return net


def groups_of(net: torch.nn.Module) -> list[ParameterGroup]:
    """Return weights, which decay, and biases, which do not."""
    named = {f"model.{name}": parameter for name, parameter in net.named_parameters()}
    return [
        ParameterGroup({name: p for name, p in named.items() if p.dim() > 1}),
        ParameterGroup({name: p for name, p in named.items() if p.dim() <= 1}, decays=False),
    ]


def loss_of(net: Any) -> torch.Tensor:
    """Return the error on a fixed problem."""
    generator = torch.Generator().manual_seed(1)
    given, wanted = torch.randn(64, 6, generator=generator), torch.randn(6, 4, generator=generator)
    answer = net.layers[1](torch.tanh(net.layers[0](given)))
    return torch.nn.functional.mse_loss(answer, given @ wanted)


def test_lmflows_twenty_names_are_there() -> None:
    assert len(LMFLOW.split()) == 20
    assert set(LMFLOW.split()) <= set(SPECS)


@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "dummy"])
def test_the_loss_falls(name: str) -> None:
    net = network()
    rate = RATES.get(name) or SPECS[name].learning_rate or 1e-2
    component, optimizer = made(name, groups_of(net), TrainingSettings(lr=rate))
    before = loss_of(net).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()
    component.use_weights(optimizer, training=False)
    assert loss_of(net).item() < 0.8 * before


@pytest.mark.parametrize("name", ON_CPU)
def test_what_is_to_decay_does_and_nothing_else(name: str) -> None:
    net = network()
    _, optimizer = made(name, groups_of(net), TrainingSettings(lr=SPECS[name].learning_rate or 1e-2, weight_decay=0.1))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(3):
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for key, value in net.state_dict().items():
        if key.endswith("bias"):
            assert torch.equal(value, before[key])
        else:
            assert value.norm() < before[key].norm(), key


@pytest.mark.parametrize("name", COUNTED)
def test_a_parameter_that_comes_back_without_state_begins_anew(name: str) -> None:
    """As in LISA: a frozen parameter has no gradient, and its state is dropped."""
    updates = []
    for steps_before in (0, 40):
        net = network()
        settings = TrainingSettings(lr=SPECS[name].learning_rate or 1e-2)
        _, optimizer = made(name, groups_of(net), settings)
        weight: Any = net.layers[0].weight  # type: ignore[index, union-attr]
        generator = torch.Generator().manual_seed(5)
        for _ in range(steps_before):
            for parameter in net.parameters():
                parameter.grad = None if parameter is weight else torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            assert weight not in optimizer.state or not optimizer.state[weight]
        start = weight.detach().clone()
        generator.manual_seed(6)
        for _ in range(2):
            for parameter in net.parameters():
                parameter.grad = None
            weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
        updates.append(weight.detach() - start)
    assert torch.allclose(updates[0], updates[1], rtol=1e-4, atol=1e-9)


def test_the_groups_of_a_counted_optimizer_are_whole_behind_a_step() -> None:
    net = network()
    _, optimizer = made("adabound", groups_of(net), TrainingSettings(lr=1e-2))
    net.layers[0].weight.grad = torch.ones(16, 6)  # type: ignore[index, union-attr]
    optimizer.step()
    assert len(optimizer.param_groups) == len(optimizer.base_lrs) == 4
    assert [group.get("step", 0) for group in optimizer.param_groups] == [1, 0, 0, 0]


WRONG: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "a decay of one": ("adabelief", {"adam_beta1": 1.0}, "--adam-beta1 must be below 1"),
    "adan's third": ("adan", {"adam_beta3": 1.0}, "--adam-beta3 must be below 1"),
    "no momentum": ("sgd_schedule_free", {"sgd_momentum": 0.0}, "--sgd-momentum must be above 0"),
    "no mean": ("adamw_schedule_free", {"adam_beta1": 0.0}, "--adam-beta1 must be above 0"),
    "muon": ("muon", {"muon_momentum": 1.0}, "--muon-momentum must be below 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_cannot_be_are_refused(case: str) -> None:
    name, options, told = WRONG[case]
    with pytest.raises(ValueError, match=told):
        SPECS[name].options(**options)  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in SPECS if name.startswith("paged_")])
def test_paging_without_a_gpu_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=r"this run has no GPU: take --optimizer adamw_8bit or lion_8bit"):
        made(name, groups_of(network()), TrainingSettings(lr=1e-3))


def test_every_optimizer_of_the_library_is_counted_by_parameter() -> None:
    targets = Catalogue.discover().of(OptimizerSpec)
    for name in ON_CPU:
        if not missing_requirement(SPECS[name]):
            counts = issubclass(targets.load(name).library, BaseOptimizer)
            assert issubclass(targets.load(name), CountedByParameter) == counts, name
