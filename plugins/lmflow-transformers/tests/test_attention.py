"""Packed attention against transformers' own attention on each example apart, for several architectures."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from lmflow_core.api import EncodedSequence, RequestError
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.attention import AttentionInputs, SdpaAttention, packed_attention, takes_attention_mask
from lmflow_transformers.batches import packed_inputs
from lmflow_transformers.beginnings import Part
from lmflow_transformers.caching import for_decoding

_CONFIGS = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "mistral with a sliding window": MistralConfig(**TINY_SHAPE, sliding_window=4),
    "qwen2": Qwen2Config(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "phi3": Phi3Config(**TINY_SHAPE),
    "gemma2 with caps": Gemma2Config(**TINY_SHAPE, head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32),
}


@pytest.mark.parametrize("name", _CONFIGS)
def test_packed_logits_equal_those_of_each_example_alone(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS[name], attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    examples = [torch.randint(1, 64, (length,), generator=generator).tolist() for length in (7, 1, 12)]
    with torch.no_grad():
        apart = torch.cat([network(input_ids=torch.tensor([ids])).logits[0] for ids in examples])
        network.set_attn_implementation(SdpaAttention().implementation("cpu"))
        inputs = packed_inputs([Part(EncodedSequence(ids, ids)) for ids in examples])
        packed = network(**inputs, use_cache=False).logits[0]
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", _CONFIGS)
def test_behind_a_cache_it_attends_as_the_network_itself(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS[name], attn_implementation="eager").eval()
    ids = torch.randint(1, 64, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(input_ids=ids, use_cache=False).logits
        network.set_attn_implementation(SdpaAttention().implementation("cpu"))
        assert not takes_attention_mask(network)
        kept = for_decoding(network, DynamicCache(config=network.config))
        parts = [network(input_ids=part, **kept).logits for part in ids.split([6, 1, 3, 1, 9], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [20, 300])
def test_in_bfloat16_it_trains_by_what_float32_gives_but_for_rounding(length: int) -> None:
    generator = torch.Generator().manual_seed(1)
    exact = [torch.randn(1, heads, length, 8, generator=generator).bfloat16().float() for heads in (4, 2, 2)]
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        given = [each.to(dtype).requires_grad_() for each in exact]
        attended = packed_attention(AttentionInputs(*given, boundaries=torch.tensor([0, length])))
        assert attended.dtype == dtype
        results.append([attended, *torch.autograd.grad(attended.float().pow(2).sum(), given)])
    for wanted, found in zip(*results, strict=True):
        assert float((found.float() - wanted).abs().max()) < 0.02 * float(wanted.abs().max())


def test_changing_one_example_leaves_the_others_alone() -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS["llama"]).eval()
    network.set_attn_implementation(SdpaAttention().implementation("cpu"))

    def logits(first: list[int]) -> torch.Tensor:
        inputs = packed_inputs([Part(EncodedSequence(first, first)), Part(EncodedSequence([4, 5, 6], [4, 5, 6]))])
        with torch.no_grad():
            return network(**inputs, use_cache=False).logits[0]

    before, after = logits([1, 2, 3]), logits([1, 9, 3])
    assert torch.equal(before[3:], after[3:])
    assert not torch.equal(before[1:3], after[1:3])


def test_attention_sinks_are_refused() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RequestError, match="attention sinks"):
        packed_attention(AttentionInputs(states, states, states, sinks=torch.zeros(2)))
