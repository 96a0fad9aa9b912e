"""The last layer's MLP works where it is read: hidden states and gradients are those of a whole pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    Qwen3Config,
)

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.lean import lean_layers
from lmflow_transformers.lean.reading import reading
from lmflow_transformers.likelihood.network import hidden_states

_WHERE_READ = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "norms behind each part of gemma2": Gemma2Config(**TINY_SHAPE, head_dim=8),
    "norms behind each part of olmo2": Olmo2Config(**TINY_SHAPE),
    "granite": GraniteConfig(**TINY_SHAPE, residual_multiplier=0.5),
    "attention beside the MLP of cohere": CohereConfig(**TINY_SHAPE),
}
_WHOLE = {
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "falcon h1": FalconH1Config(
        **TINY_SHAPE, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8
    ),
}
_LENGTH, _READ = 24, [3, 11, 12, 23]


def _network(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def _batch(read: list[int]) -> Batch:
    ids = [5 + number % 50 for number in range(_LENGTH + 1)]
    labels = [IGNORE] + [ids[place + 1] if place in read else IGNORE for place in range(_LENGTH)]
    return collate([EncodedExample((EncodedSequence(ids, labels),))], isolated=False)


def _rows_seen(network: Any) -> list[int]:
    """Note how many positions each call of the last layer's MLP is given."""
    seen: list[int] = []
    network.model.layers[-1].mlp.down_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    return seen


def _learned(network: Any, found: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    trained = list(network.base_model.parameters())
    return [found.detach(), *torch.autograd.grad((found * weights).mean(), trained)]


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", [*_WHERE_READ, *_WHOLE])
def test_what_is_read_and_its_gradients_are_those_of_a_whole_pass(name: str, lean: bool) -> None:
    network, batch = _network({**_WHERE_READ, **_WHOLE}[name]), _batch(_READ)
    wanted = _learned(network, hidden_states(network, batch)[batch.labelled])
    if lean:
        with lean_layers(network):
            found = _learned(network, hidden_states(network, batch, batch.labelled))
    else:
        found = _learned(network, hidden_states(network, batch, batch.labelled))
    assert len(found[0]) == len(_READ)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", _WHERE_READ)
def test_the_last_mlp_sees_what_is_read(name: str) -> None:
    network, batch = _network(_WHERE_READ[name]), _batch(_READ)
    seen = _rows_seen(network)
    hidden_states(network, batch, batch.labelled)
    hidden_states(network, batch)
    assert seen == [len(_READ), len(batch.targets)]
    assert "forward" not in vars(network.model.layers[-1].mlp)


@pytest.mark.parametrize("read", [[], [*range(_LENGTH)]])
def test_where_nothing_or_all_is_read_it_works_as_ever(read: list[int]) -> None:
    network, batch = _network(_WHERE_READ["llama"]), _batch(read)
    seen = _rows_seen(network)
    assert hidden_states(network, batch, batch.labelled).shape == (len(read), TINY_SHAPE["hidden_size"])
    assert seen == [len(batch.targets)]


def test_what_backward_computes_again_is_left_as_it_is() -> None:
    network = _network(_WHERE_READ["llama"])
    network.train().gradient_checkpointing_enable()
    seen = _rows_seen(network)
    with reading(network, torch.tensor(_READ), _LENGTH + 1):
        found = hidden_states(network, _batch(_READ))[_READ]
    _learned(network, found)
    assert set(seen) == {_LENGTH + 1}
