"""Layers that keep fewer activations compute what they computed before."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BitNetConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    Qwen3Config,
)

from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.lean import lean_layers
from lmflow_transformers.lean.recomputable import Recomputable

_SHAPE: dict[str, Any] = {**TINY_SHAPE, "intermediate_size": 96}
_NETWORKS = {
    "llama": LlamaConfig(**_SHAPE),
    "llama without activation": LlamaConfig(**_SHAPE, hidden_act="linear"),
    "gelu gemma2": Gemma2Config(**_SHAPE, head_dim=8),
    "granite": GraniteConfig(**_SHAPE, residual_multiplier=0.5),
    "qwen3": Qwen3Config(**_SHAPE, head_dim=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "a norm in the MLP of bitnet": BitNetConfig(**_SHAPE),
    "factors in the MLP of falcon h1": FalconH1Config(
        **_SHAPE,
        mlp_multipliers=[0.5, 0.3],
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_n_groups=1,
        mamba_d_state=8,
    ),
}
_IDS = torch.arange(24)[None] % 64


def _network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network: torch.nn.Module = AutoModelForCausalLM.from_config(_NETWORKS[name], attn_implementation="eager")
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data += torch.randn_like(parameter) * 0.1
    return network.train()


def _loss_and_gradients(network: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    loss = network(input_ids=_IDS, labels=_IDS).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def _assert_same(plain: Any, lean: Any) -> None:
    loss, gradients = _loss_and_gradients(plain)
    with lean_layers(lean):
        ours, our_gradients = _loss_and_gradients(lean)
    torch.testing.assert_close(ours, loss, atol=1e-6, rtol=1e-6)
    assert our_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", _NETWORKS)
def test_loss_and_gradients_are_the_plain_ones(name: str) -> None:
    plain = _network(name)
    _assert_same(plain, copy.deepcopy(plain))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_adapters_train_as_they_would(dropout: float) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False)
    plain = get_peft_model(_network("llama"), config)
    _assert_same(plain, copy.deepcopy(plain))


def test_frozen_layers_pass_gradients_on() -> None:
    plain = _network("llama")
    for parameter in plain.model.layers[1].parameters():
        parameter.requires_grad_(False)
    _assert_same(plain, copy.deepcopy(plain))


class _Mlp(torch.nn.Module):
    """A gated MLP that does something more."""

    def __init__(self, extra: str) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (torch.nn.Linear(8, 16, bias=False) for _ in range(2))
        self.down_proj, self.act_fn = torch.nn.Linear(16, 8, bias=False), torch.nn.SiLU()
        self.extra = extra

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_proj(hidden), self.up_proj(hidden)
        if self.extra == "clamp":
            gate = gate.clamp(max=7.0)
        product = self.act_fn(gate) * up
        if self.extra == "dropout":
            product = torch.nn.functional.dropout(product, 0.1, self.training)
        return self.down_proj(product)


@pytest.mark.parametrize(("extra", "changed"), [("nothing", True), ("clamp", False), ("dropout", False)])
@pytest.mark.parametrize("training", [True, False])
def test_an_mlp_is_changed_only_where_it_computes_what_ours_does(extra: str, changed: bool, training: bool) -> None:
    mlp = _Mlp(extra).train(training)
    state = torch.random.get_rng_state()
    with lean_layers(mlp):
        assert ("forward" in vars(mlp)) == changed
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {part.training for part in mlp.modules()} == {training}


class _Scale:
    """Weighs what is kept for backward, each storage once."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        self._held: dict[int, torch.Tensor] = {}

    def weigh(self, kept: Any) -> Any:
        if isinstance(kept, torch.Tensor) and kept.untyped_storage().data_ptr() not in self._weights:
            self._held[kept.untyped_storage().data_ptr()] = kept
        return kept

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._held.values())


def test_half_of_the_activations_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network("llama")
    network.set_attn_implementation("sdpa")
    plain, lean = _Scale(network), _Scale(network)
    with torch.autograd.graph.saved_tensors_hooks(plain.weigh, lambda kept: kept):
        network.model(input_ids=_IDS)
    pack = Recomputable.pack
    monkeypatch.setattr(Recomputable, "pack", lambda self, tensor: lean.weigh(pack(self, tensor)))
    with lean_layers(network):
        network.model(input_ids=_IDS)
    assert 0 < lean.bytes < 0.6 * plain.bytes


def test_the_network_is_as_it_was_afterwards() -> None:
    network = _network("llama")
    with lean_layers(network):
        assert "forward" in vars(network.model.layers[0].mlp)
        assert "forward" in vars(network.model.norm)
    assert not any("forward" in vars(module) for module in network.modules())
