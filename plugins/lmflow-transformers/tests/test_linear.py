"""Linear layers by oneDNN give what PyTorch's own do, before and after their weights change."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

import lmflow_transformers.linear as linear_module
from lmflow_transformers.caching import for_decoding
from lmflow_transformers.linear import few_rows_are_quick, has_onednn, keep_copies, linear, quicken_linears

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
    quick = copy.deepcopy(plain)
    quicken_linears(quick)
    return plain, quick


def _logits(network: Any, length: int) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = network(input_ids=torch.arange(length)[None]).logits
    return logits


def _copies(network: nn.Module) -> int:
    return sum(layer._packed is not None for layer in linear_module._quick_layers(network))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5, 64, 65])
def test_logits_are_those_of_plain_layers(rows: int, copies: bool) -> None:
    plain, quick = _pair()
    if copies:
        keep_copies(quick)
    torch.testing.assert_close(_logits(quick, rows), _logits(plain, rows), atol=1e-5, rtol=1e-5)
    assert (_copies(quick) == 15) is (copies and rows <= 64)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_a_plain_layer(frozen: bool, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40, bias=bias)
    plain.weight.requires_grad_(not frozen)
    quick = copy.deepcopy(plain)
    quicken_linears(quick)
    found = []
    for layer in (plain, quick):
        states = torch.linspace(-1, 1, 2 * 7 * 24).view(2, 7, 24).requires_grad_()
        layer(states).pow(3).sum().backward()
        found.append([states.grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad])
    for expected, ours in zip(*found, strict=True):
        if expected is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


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
        assert _copies(quick) == 0
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


def test_without_memory_for_copies_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = _pair()
    monkeypatch.setattr(linear_module, "_free_memory", lambda: 1000)
    keep_copies(quick)
    torch.testing.assert_close(_logits(quick, 3), _logits(plain, 3), atol=1e-5, rtol=1e-5)
    assert _copies(quick) == 0
    assert not few_rows_are_quick(quick)


def test_other_layers_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16), nn.Conv1d(1, 1, 1), nn.LayerNorm(8))
    quicken_linears(network)
    assert not linear_module._quick_layers(network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_product_of_any_type_is_pytorchs(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states, weight = torch.randn(6, 16, dtype=dtype), torch.randn(9, 16, dtype=dtype)
    expected = nn.functional.linear(states, weight)
    torch.testing.assert_close(linear(states, weight), expected)
    torch.testing.assert_close(linear(states, weight.t().contiguous().t()), expected)


def test_memory_is_told() -> None:
    assert linear_module._free_memory() > 1 << 20
