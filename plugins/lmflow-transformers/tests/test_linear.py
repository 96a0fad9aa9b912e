"""Linear layers with copies of their weights give what plain ones do, before and after the weights change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

import lmflow_transformers.linear as linear_module
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.devices import free_memory
from lmflow_transformers.linear import _QuickLinear, few_rows_are_quick, has_onednn, keep_copies

pytestmark = pytest.mark.skipif(not has_onednn(), reason="PyTorch without oneDNN")


def _network() -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0
    )
    network: nn.Module = AutoModelForCausalLM.from_config(config)
    return network.eval()


def _pair() -> tuple[nn.Module, nn.Module]:
    plain = _network()
    return plain, copy.deepcopy(plain)


def _logits(network: Any, length: int) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = network(input_ids=torch.arange(length)[None]).logits
    return logits


def _copies(network: nn.Module) -> int:
    quick = (vars(module).get("forward") for module in network.modules())
    return sum(forward._copy is not None for forward in quick if isinstance(forward, _QuickLinear))


@pytest.mark.parametrize("rows", [1, 2, 5, 64, 65])
def test_logits_are_those_of_plain_layers(rows: int) -> None:
    plain, quick = _pair()
    keep_copies(quick)
    torch.testing.assert_close(_logits(quick, rows), _logits(plain, rows), atol=1e-5, rtol=1e-5)
    assert _copies(quick) == (15 if rows <= 64 else 0)
    torch.testing.assert_close(_logits(quick, 3), _logits(plain, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(_logits(quick, rows), _logits(plain, rows), atol=1e-5, rtol=1e-5)


def test_a_bias_is_added() -> None:
    plain = nn.Linear(24, 40)
    quick = copy.deepcopy(plain)
    keep_copies(quick)
    with torch.no_grad():
        states = torch.randn(2, 3, 24)
        torch.testing.assert_close(quick(states), plain(states), atol=1e-5, rtol=1e-5)
    assert _copies(quick) == 1


def test_copies_go_with_training_and_come_anew() -> None:
    plain, quick = _pair()
    optimizers = [torch.optim.AdamW(network.parameters(), lr=0.05) for network in (plain, quick)]
    for _ in range(2):
        for_decoding(quick, DynamicCache())
        torch.testing.assert_close(_logits(quick, 4), _logits(plain, 4), atol=1e-4, rtol=1e-4)
        assert few_rows_are_quick(quick)
        assert _copies(quick) == 15
        for network, optimizer in zip((plain, quick), optimizers, strict=True):
            network(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert not few_rows_are_quick(quick)
        torch.testing.assert_close(_logits(quick, 4), _logits(plain, 4), atol=1e-4, rtol=1e-4)


def test_a_weight_that_is_written_to_is_copied_anew() -> None:
    plain, quick = _pair()
    keep_copies(quick)
    _logits(quick, 3)
    for network in (plain, quick):
        with torch.no_grad():
            network.get_output_embeddings().weight.mul_(2)
            network.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.ones(80, 32))
    torch.testing.assert_close(_logits(quick, 3), _logits(plain, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_a_weight_that_an_optimizer_changed_is_copied_anew(fused: bool) -> None:
    # A layer whose forward pass a training pass goes around keeps its copy, and a fused step tells no new version.
    plain, quick = _pair()
    keep_copies(quick)
    _logits(quick, 3)
    for network in (plain, quick):
        weights = [module.weight for module in network.modules() if type(module) is nn.Linear]
        optimizer = torch.optim.AdamW(weights, lr=0.1, fused=fused)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    torch.testing.assert_close(_logits(quick, 3), _logits(plain, 3), atol=1e-5, rtol=1e-4)


def test_without_memory_for_copies_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = _pair()
    monkeypatch.setattr(linear_module, "free_memory", lambda device: 1000)
    keep_copies(quick)
    torch.testing.assert_close(_logits(quick, 3), _logits(plain, 3), atol=1e-5, rtol=1e-5)
    assert not few_rows_are_quick(quick)


def test_other_layers_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16), nn.Conv1d(1, 1, 1), nn.LayerNorm(8))
    keep_copies(network)
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_forward_that_another_has_put_there_stays() -> None:
    layer = nn.Linear(4, 4)
    layer.forward = lambda states: states
    keep_copies(layer)
    assert layer(3) == 3


def test_memory_is_told() -> None:
    assert free_memory(torch.device("cpu")) > 1 << 20


@pytest.mark.parametrize("rows", [1, 5, 17, 63, 64])
def test_rows_that_are_padded_are_those_alone(rows: int) -> None:
    """Whatever shares a product with a row changes no bit of it: answers do not depend on their company."""
    layer = nn.Linear(24, 40)
    keep_copies(layer)
    states = torch.randn(2, 64, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = torch.cat([layer(states[:1, at : at + 1]) for at in range(rows)], dim=1)
        assert torch.equal(layer(states[:1, :rows]), alone)
        assert layer(states[:, :9]).shape == (2, 9, 40)
        assert layer(states[:, :0]).shape == (2, 0, 40)
        torch.testing.assert_close(alone, nn.functional.linear(states[:1, :rows], layer.weight, layer.bias))
