"""Updates against independent references: the library's class stepped by hand, or the formulas of a paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import pytorch_optimizer
import torch

from lmflow_core.api import OptimizerSpec, ParameterGroup, RequestError, TrainingSettings
from lmflow_core.plugins.registry import Catalogue
from lmflow_optimizers.hidden import is_hidden_matrix
from lmflow_optimizers.plugin import lmflow_register_optimizers

SPECS = {spec.name: spec for spec in lmflow_register_optimizers()}
LR, DECAY = 1e-2, 0.1
HIDDEN, TABLE, NORM = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"
Weights = dict[str, torch.nn.Parameter]


def weights() -> Weights:
    """Return a hidden matrix, a table and a norm."""
    generator = torch.Generator().manual_seed(0)
    shapes = {HIDDEN: (12, 20), TABLE: (30, 12), NORM: (12,)}
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Return what each has as its gradient at a step."""
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(p.shape, generator=generator) for name, p in weights().items()}


def groups_of(given: Weights) -> Sequence[ParameterGroup]:
    """Return groups: the norm does not decay."""
    return [
        ParameterGroup({name: p for name, p in given.items() if p.dim() > 1}),
        ParameterGroup({name: p for name, p in given.items() if p.dim() <= 1}, lr_factor=2.0, decays=False),
    ]


def component(name: str, **options: Any) -> Any:
    """Return the target of a name."""
    spec = SPECS[name]
    return Catalogue.discover().of(OptimizerSpec).load(name)(spec.options(**options) if spec.options else None)


def stepped(optimizer: Any, given: Weights, steps: int = 4) -> dict[str, torch.Tensor]:
    """Return the weights behind some steps."""
    for step in range(steps):
        for name, gradient in gradients(step).items():
            given[name].grad = gradient
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in given.items()}


def ours(name: str, steps: int = 4, **options: Any) -> dict[str, torch.Tensor]:
    """Return the weights behind some steps of an optimizer of the plugin."""
    given = weights()
    made = component(name, **options).make(groups_of(given), TrainingSettings(lr=LR, weight_decay=DECAY))
    return stepped(made, given, steps)


def by_hand(given: Weights) -> list[dict[str, Any]]:
    """Return torch groups, written out."""
    return [
        {"params": [given[HIDDEN], given[TABLE]], "lr": LR, "weight_decay": DECAY},
        {"params": [given[NORM]], "lr": 2 * LR, "weight_decay": 0.0},
    ]


BY_HAND: dict[str, tuple[Any, dict[str, Any]]] = {
    "adabelief": (pytorch_optimizer.AdaBelief, {"eps": 1e-16}),
    "adabound": (pytorch_optimizer.AdaBound, {}),
    "adamp": (pytorch_optimizer.AdamP, {}),
    "adan": (pytorch_optimizer.Adan, {}),
    "lars": (pytorch_optimizer.LARS, {"momentum": 0.9, "trust_coefficient": 0.01}),
    "lion": (pytorch_optimizer.Lion, {}),
    "novograd": (pytorch_optimizer.NovoGrad, {}),
    "sgdp": (pytorch_optimizer.SGDP, {"momentum": 0.9}),
    "adamw_schedule_free": (pytorch_optimizer.ScheduleFreeAdamW, {}),
    "sgd_schedule_free": (pytorch_optimizer.ScheduleFreeSGD, {}),
    "adam": (torch.optim.Adam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.95}),
    "adagrad": (torch.optim.Adagrad, {"eps": 1e-8}),
    "adafactor": (torch.optim.Adafactor, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.9}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_are_those_of_the_library(name: str) -> None:
    library, arguments = BY_HAND[name]
    given = weights()
    expected = stepped(library(by_hand(given), **arguments), given)
    for key, value in ours(name).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)


def test_eight_bits_stay_near_the_exact_steps() -> None:
    pytest.importorskip("bitsandbytes")
    for name, exact in (("adamw_8bit", torch.optim.AdamW), ("lion_8bit", pytorch_optimizer.Lion)):
        given = {HIDDEN: torch.nn.Parameter(torch.randn(128, 64, generator=torch.Generator().manual_seed(0)))}
        twin = {HIDDEN: torch.nn.Parameter(given[HIDDEN].detach().clone())}
        optimizer = component(name).make([ParameterGroup(given)], TrainingSettings(lr=LR, weight_decay=DECAY))
        reference = exact([{"params": [twin[HIDDEN]], "lr": LR, "weight_decay": DECAY}])
        for step in range(4):
            gradient = torch.randn(128, 64, generator=torch.Generator().manual_seed(step))
            given[HIDDEN].grad, twin[HIDDEN].grad = gradient.clone(), gradient.clone()
            optimizer.step()
            reference.step()
        assert optimizer.state[given[HIDDEN]]["state1"].dtype == torch.uint8
        off = (given[HIDDEN] - twin[HIDDEN]).abs().mean()
        assert off < 0.1 * LR, name


def test_lamb_is_the_papers_and_leaves_vectors_to_adam() -> None:
    """Algorithm 2 of arXiv:1904.00962 without the correction of the second mean, as in its third version."""
    expected = {name: p.detach().double() for name, p in weights().items()}
    means = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    for step in range(1, 4):
        for name, gradient in gradients(step - 1).items():
            first, second = means[name]
            first.mul_(0.9).add_(0.1 * gradient.double())
            second.mul_(0.999).add_(0.001 * gradient.double() ** 2)
            vector = expected[name].dim() == 1
            update = first / (second.sqrt() + 1e-6) + (0.0 if vector else DECAY) * expected[name]
            trust = 1.0 if vector else min(expected[name].norm().item(), 10.0) / update.norm().item()
            expected[name] -= (2 if vector else 1) * LR / (1 - 0.9**step) * trust * update
    for name, value in ours("lamb", 3).items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)


def test_yogis_squares_change_by_bounded_amounts() -> None:
    expected = {name: p.detach().double() for name, p in weights().items()}
    means = {name: (torch.zeros_like(p), torch.full_like(p, 1e-6)) for name, p in expected.items()}
    for step in range(1, 5):
        for name, gradient in gradients(step - 1).items():
            first, second = means[name]
            square = gradient.double() ** 2
            first.mul_(0.9).add_(0.1 * gradient.double())
            second.sub_(0.001 * torch.sign(second - square) * square)
            rate, decay = (2 * LR, 0.0) if expected[name].dim() == 1 else (LR, DECAY)
            denominator = (second / (1 - 0.999**step)).sqrt() + 1e-3
            expected[name] = expected[name] * (1 - rate * decay) - rate / (1 - 0.9**step) * first / denominator
    for name, value in ours("yogi").items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)


def test_sophia_is_momentum_over_curvature_clipped() -> None:
    expected = {name: p.detach().double() for name, p in weights().items()}
    means = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    clipped = []
    for step in range(4):
        for name, gradient in gradients(step).items():
            first, curvature = means[name]
            first.mul_(0.965).add_(0.035 * gradient.double())
            if step % 2 == 0:
                curvature.mul_(0.99).add_(0.01 * gradient.double() ** 2)
            decay = 0.0 if expected[name].dim() == 1 else DECAY
            rate = LR * (2 if expected[name].dim() == 1 else 1)
            ratio = first / (2.0 * 8 * curvature).clamp_min(1e-12)
            clipped.append((ratio.abs() > 1).double().mean().item())
            expected[name] = expected[name] * (1 - rate * decay) - rate * ratio.clamp(-1, 1)
    assert any(0 < share < 1 for share in clipped)
    found = ours("sophia", sophia_rho=2.0, sophia_batch_tokens=8, sophia_interval_steps=2)
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)


def test_the_weights_to_use_are_the_average_of_the_paper() -> None:
    """The sequences x, y and z of arXiv:2405.15682 for descent at a constant rate."""
    given = weights()
    target = component("sgd_schedule_free")
    optimizer = target.make(groups_of(given), TrainingSettings(lr=LR))
    z = {name: p.detach().clone() for name, p in given.items()}
    x = {name: p.detach().clone() for name, p in given.items()}
    trained = stepped(optimizer, given)
    for step in range(4):
        for name, gradient in gradients(step).items():
            z[name] = z[name] - LR * (2 if name == NORM else 1) * gradient
            x[name] = x[name] + (z[name] - x[name]) / (step + 1)
    target.use_weights(optimizer, training=False)
    target.use_weights(optimizer, training=False)
    for name, parameter in given.items():
        torch.testing.assert_close(parameter.detach(), x[name], rtol=1e-5, atol=1e-6)
    target.use_weights(optimizer, training=True)
    for name, parameter in given.items():
        assert torch.equal(parameter, trained[name])


NAMES = {
    "model.layers.0.self_attn.q_proj.weight": True,
    "base_model.model.model.layers.3.mlp.up_proj.lora_A.default.weight": True,
    "base_model.model.model.layers.3.mlp.up_proj.lora_B.default.weight": True,
    "transformer.h.11.attn.c_attn.weight": True,
    "gpt_neox.layers.2.attention.dense.weight": True,
    "model.visual.blocks.0.mlp.fc1.weight": True,
    "model.layers.0.mlp.gate.weight": True,
    "model.embed_tokens.weight": False,
    "lm_head.weight": False,
    "lm_head.0.weight": False,
    "transformer.wte.weight": False,
    "gpt_neox.embed_out.weight": False,
    "score.weight": False,
    "base_model.model.lm_head.lora_A.default.weight": False,
    "base_model.model.model.embed_tokens.lora_embedding_A.default": False,
    "model.layers.0.embed_positions.weight": False,
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": False,
}


@pytest.mark.parametrize("name", NAMES)
def test_hidden_matrices_are_told_by_name(name: str) -> None:
    assert is_hidden_matrix(name, torch.zeros(4, 6)) == NAMES[name]


@pytest.mark.parametrize("shape", [(6,), (4, 1), (2, 4, 6)])
def test_vectors_columns_and_stacks_are_no_matrices(shape: tuple[int, ...]) -> None:
    assert not is_hidden_matrix("model.layers.0.mlp.up_proj.weight", torch.zeros(shape))


@pytest.mark.parametrize("name", ["muon", "galore", "apollo"])
def test_a_network_without_hidden_matrices_is_refused(name: str) -> None:
    given = {TABLE: weights()[TABLE]}
    with pytest.raises(RequestError, match=rf"--optimizer {name} is for weight matrices .*take --optimizer adamw"):
        component(name).make([ParameterGroup(given)], TrainingSettings(lr=LR))


@pytest.mark.parametrize("scaling", ["rms", "shape"])
def test_muon_orthogonalises_hidden_matrices_and_gives_the_rest_to_adamw(scaling: str) -> None:
    found = ours("muon", 1, muon_scaling=scaling)
    start, gradient = weights()[HIDDEN].detach(), gradients(0)[HIDDEN]
    # Nesterov's momentum behind one step, through the published iteration with its five quintic polynomials.
    momentum = 0.05 * gradient
    ahead = 0.05 * gradient + 0.95 * momentum
    x = ahead / ahead.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    factor = 0.2 * math.sqrt(20) if scaling == "rms" else max(1.0, 12 / 20) ** 0.5
    expected = start * (1 - LR * DECAY) - LR * factor * x
    # The library iterates in bfloat16.
    assert (found[HIDDEN] - expected).norm() < 0.02 * (LR * factor * x).norm()
    given = weights()
    adamw = torch.optim.AdamW(by_hand(given), betas=(0.9, 0.95))
    rest = stepped(adamw, given, 1)
    for name in (TABLE, NORM):
        torch.testing.assert_close(found[name], rest[name], rtol=1e-5, atol=1e-6)


def test_galore_is_adam_in_the_space_of_the_largest_singular_vectors() -> None:
    found = ours("galore", 3, galore_rank=4)
    weight = weights()[HIDDEN].detach()
    basis = torch.linalg.svd(gradients(0)[HIDDEN], full_matrices=False)[0][:, :4]
    first, second = torch.zeros(4, 20), torch.zeros(4, 20)
    for step in range(1, 4):
        low = basis.T @ gradients(step - 1)[HIDDEN]
        first, second = 0.9 * first + 0.1 * low, 0.999 * second + 0.001 * low**2
        rate = LR * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weight = weight - rate * 0.25 * basis @ (first / (second.sqrt() + 1e-6))
        weight = weight * (1 - LR * DECAY)
    torch.testing.assert_close(found[HIDDEN], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scaled", ["channel", "tensor"])
def test_apollo_scales_the_gradient_as_adam_scales_its_projection(scaled: str) -> None:
    given = weights()
    options = {"apollo_rank": 4, "apollo_scaled": scaled, "apollo_scale": 2.0}
    optimizer = component("apollo", **options).make(groups_of(given), TrainingSettings(lr=LR, weight_decay=DECAY))
    weight = given[HIDDEN].detach().clone()
    first, second, last = torch.zeros(4, 20), torch.zeros(4, 20), None
    for step in range(1, 4):
        gradient = gradients(step - 1)[HIDDEN]
        for name, each in gradients(step - 1).items():
            given[name].grad = each
        optimizer.step()
        low = optimizer.state[given[HIDDEN]]["projection"].T @ gradient
        first, second = 0.9 * first + 0.1 * low, 0.999 * second + 0.001 * low**2
        adam = first / (second.sqrt() + 1e-6)
        factor = adam.norm(dim=0) / low.norm(dim=0) if scaled == "channel" else adam.norm() / low.norm()
        update = gradient * factor
        if last is not None and update.norm() > 1.01 * last:
            update = update / (update.norm() / (1.01 * last))
        last = update.norm()
        rate = LR * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weight = (weight - rate * math.sqrt(2.0) * update) * (1 - LR * DECAY)
    torch.testing.assert_close(given[HIDDEN].detach(), weight, rtol=1e-4, atol=1e-6)


def test_apollos_projections_follow_from_the_seed_alone() -> None:
    """Processes of one job, whose other random numbers differ, must not drift apart; nor are those disturbed."""
    torch.manual_seed(1)
    one = ours("apollo", apollo_rank=4)
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    two = ours("apollo", apollo_rank=4)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one[HIDDEN], two[HIDDEN])


def test_state_between_steps_is_tensors_and_numbers() -> None:
    for name in ("galore", "apollo", "sophia", "lamb"):
        given = weights()
        options = {f"{name}_rank": 4} if name in ("galore", "apollo") else {}
        optimizer = component(name, **options).make(groups_of(given), TrainingSettings(lr=LR))
        stepped(optimizer, given, 2)
        kinds = {type(value) for state in optimizer.state.values() for value in state.values()}
        assert kinds <= {torch.Tensor, int, float}
