"""Which kernel runs, that its results are those of plain attention, and what is refused."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

from lmflow_core.api import EncodedSequence, RequestError
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_flash_attention import cpu, gpu
from lmflow_flash_attention.attention import FlashAttention
from lmflow_transformers.attention import AttentionInputs, packed_attention
from lmflow_transformers.batches import packed_inputs
from lmflow_transformers.beginnings import Part
from lmflow_transformers.caching import for_decoding

_CONFIGS = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "mistral with a sliding window": MistralConfig(**TINY_SHAPE, sliding_window=4),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
}
_FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"


def _states(length: int, head: int = 16, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = ((1, 4, length, head), (1, 2, length, head), (1, 2, length, head))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def _operators(work: Callable[[], Any]) -> set[str]:
    with torch.profiler.profile() as profile:
        work()
    return {event.key for event in profile.key_averages() if "scaled_dot_product" in event.key and "_" in event.key}


@pytest.mark.parametrize("name", _CONFIGS)
def test_packed_logits_equal_those_of_each_example_alone(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS[name], attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(1)
    examples = [torch.randint(1, 64, (length,), generator=generator).tolist() for length in (7, 1, 12)]
    with torch.no_grad():
        alone = torch.cat([network(input_ids=torch.tensor([ids])).logits[0] for ids in examples])
        network.set_attn_implementation(FlashAttention().implementation("cpu"))
        inputs = packed_inputs([Part(EncodedSequence(ids, ids)) for ids in examples])
        packed = network(**inputs, use_cache=False).logits[0]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", _CONFIGS)
def test_behind_a_cache_it_attends_as_the_network_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_WINDOW_ROWS", 4)
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS[name], attn_implementation="eager").eval()
    ids = torch.randint(1, 64, (1, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network(input_ids=ids, use_cache=False).logits
        network.set_attn_implementation(FlashAttention().implementation("cpu"))
        kept = for_decoding(network, DynamicCache(config=network.config))
        parts = [network(input_ids=part, **kept).logits for part in ids.split([6, 1, 3, 1, 9], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 5, 300, 700])
def test_the_flash_kernel_runs_and_no_other_and_its_gradients_are_right(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_WINDOW_ROWS", 128)
    ours, theirs = _states(600), _states(600)
    ends = torch.tensor([0, 17, 600], dtype=torch.int32)
    results: list[torch.Tensor] = []

    def work() -> None:
        results.append(cpu.cpu_attention(AttentionInputs(*ours, window=window, boundaries=ends)))
        results[0].square().sum().backward()

    operators = _operators(work)
    assert _FLASH in operators
    assert not any("math" in name for name in operators)
    assert f"{_FLASH}_backward" in operators
    expected = packed_attention(AttentionInputs(*theirs, window=window, boundaries=ends))
    expected.square().sum().backward()
    torch.testing.assert_close(results[0], expected, atol=1e-5, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_what_the_cpu_kernel_cannot_do_is_refused_not_replaced() -> None:
    query, key, value = _states(8)

    def attend(**changes: Any) -> None:
        cpu.cpu_attention(replace(AttentionInputs(query, key, value), **changes))

    with pytest.raises(RequestError, match=r"attention dropout \(0\.1\); use --attention sdpa"):
        attend(dropout=0.1)
    with pytest.raises(RequestError, match="capped attention scores"):
        attend(softcap=50.0)
    with pytest.raises(RequestError, match="attention sinks"):
        attend(sinks=torch.zeros(4))
    with pytest.raises(RequestError, match=r"heads of different sizes \(16, 16, 8\)"):
        attend(value=value[..., :8])
    with pytest.raises(RequestError, match="does not take queries"):
        attend(query=query.to(torch.complex64), key=key.to(torch.complex64), value=value.to(torch.complex64))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="on cuda:1: PyTorch finds no GPU here; use --device cpu"):
        FlashAttention().implementation("cuda:1")


def test_a_model_with_capped_scores_is_refused() -> None:
    config = Gemma2Config(**TINY_SHAPE, head_dim=8, query_pre_attn_scalar=8)
    network = AutoModelForCausalLM.from_config(config)
    network.set_attn_implementation(FlashAttention().implementation("cpu"))
    with pytest.raises(RequestError, match="capped attention scores"):
        network(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def _fake_kernel(calls: list[dict[str, Any]]) -> Callable[..., Any]:
    """A function with the signature of flash-attn's variable-length kernel, computed plainly."""

    def flash_attn_varlen_func(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor,
        cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor, max_seqlen_q: int, max_seqlen_k: int,
        dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
    ) -> torch.Tensor:  # fmt: skip
        assert cu_seqlens_q.dtype == torch.int32
        longest = (max_seqlen_q, max_seqlen_k)
        calls.append({"longest": longest, "window": window_size, "causal": causal, "softcap": softcap})
        parts = []
        for (start, end), (first, last) in zip(
            pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True
        ):
            groups = q.shape[1] // k.shape[1]
            one = q[start:end].float().transpose(0, 1)
            keys, values = (x[first:last].float().repeat_interleave(groups, 1).transpose(0, 1) for x in (k, v))
            scores = one @ keys.transpose(-1, -2) * (softmax_scale or q.shape[-1] ** -0.5)
            scores = softcap * torch.tanh(scores / softcap) if softcap else scores
            # As flash-attn lays a shorter query against its keys: the last of both side by side.
            before = (last - first) - (end - start)
            distance = torch.arange(end - start)[:, None] + before - torch.arange(last - first)[None]
            hidden = distance < 0
            if window_size[0] >= 0:
                hidden |= distance > window_size[0]
            parts.append((scores.masked_fill(hidden, float("-inf")).softmax(-1) @ values).transpose(0, 1).to(q.dtype))
        return torch.cat(parts)

    return flash_attn_varlen_func


def _installed(generation: int, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> gpu.Kernel:
    """Put the fake kernel in the place of a generation's."""
    kernel = next(kernel for kernel in gpu.KERNELS if kernel.generation == generation)
    plain = _fake_kernel(calls)
    module = types.ModuleType(kernel.module)
    module.flash_attn_varlen_func = (  # type: ignore[attr-defined]
        plain if generation == 2 else lambda *a, **k: (plain(*a, **k), None)
    )
    if "." in kernel.module:
        monkeypatch.setitem(sys.modules, kernel.module.split(".")[0], types.ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, kernel.module, module)
    return kernel


@pytest.mark.parametrize("queries", [1, 6])
@pytest.mark.parametrize("window", [None, 5])
def test_the_gpu_kernel_is_told_of_the_keys_of_a_cache(
    queries: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    kernel = _installed(2, calls, monkeypatch)
    query, key, value = _states(20, dtype=torch.bfloat16)
    states = (query[:, :, -queries:], key, value)
    ours = gpu.varlen_attention(kernel)(AttentionInputs(*states, window=window))
    theirs = packed_attention(AttentionInputs(*(s.float() for s in states), window=window))
    torch.testing.assert_close(ours.float(), theirs, atol=2e-2, rtol=2e-2)
    assert calls[0]["longest"] == (queries, 20)


@pytest.mark.parametrize("generation", [2, 3, 4])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, None), (None, 3.0)])
def test_the_gpu_kernel_is_called_with_packed_examples(
    generation: int, window: int | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    kernel = _installed(generation, calls, monkeypatch)
    states = _states(20, dtype=torch.bfloat16)
    ends = torch.tensor([0, 7, 8, 20], dtype=torch.int32)
    common: dict[str, Any] = {"window": window, "softcap": softcap, "scaling": 0.3, "boundaries": ends}
    ours = gpu.varlen_attention(kernel)(AttentionInputs(*states, **common))
    theirs = packed_attention(AttentionInputs(*(s.float() for s in states), **common))
    torch.testing.assert_close(ours.float(), theirs, atol=2e-2, rtol=2e-2)
    assert calls == [
        {
            "longest": (12, 12),
            "window": (-1, -1) if window is None else (window - 1, 0),
            "causal": True,
            "softcap": softcap or 0.0,
        }
    ]


def test_the_newest_kernel_that_fits_the_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: set[str] = set()

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(gpu.importlib.metadata, "version", version)
    with pytest.raises(RequestError, match="needs flash-attn or flash-attn-3 or flash-attn-4, not installed: pip"):
        gpu.best_kernel((9, 0))
    with pytest.raises(RequestError, match=r"no kernel for compute capability 7\.5"):
        gpu.best_kernel((7, 5))
    installed |= {"flash-attn", "flash-attn-3"}
    assert gpu.best_kernel((9, 0)).generation == 3
    assert gpu.best_kernel((10, 0)).generation == 2
    with pytest.raises(RequestError, match=r"takes bfloat16 or float16, not torch\.float32: add --dtype bfloat16"):
        gpu._refuse(gpu.KERNELS[2], AttentionInputs(*_states(3)))
    with pytest.raises(RequestError, match="flash-attn-3 does not support attention dropout"):
        gpu._refuse(gpu.KERNELS[1], AttentionInputs(*_states(3, dtype=torch.bfloat16), dropout=0.1))


def test_no_gpu_package_is_told_before_anything_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(RequestError, match="pip install --no-build-isolation flash-attn, or use --attention sdpa"):
        FlashAttention().implementation("cuda")
    with pytest.raises(RequestError, match="there is no flash kernel for mps"):
        FlashAttention().implementation("mps")


def test_an_attention_that_is_not_there_is_told(lmflow_cli: Callable[..., CliResult], tiny_model: Path) -> None:
    asked = ("generate", "--model", tiny_model, "--prompt", "hello", "--device", "cpu", "--attention")
    unknown = lmflow_cli(*asked, "flsh")
    assert unknown.status == 2
    assert "flash" in unknown.stderr


def test_doctor_tells_which_attention_there_is(
    lmflow_cli: Callable[..., CliResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lmflow_cli("doctor", "--json").json()["attention"]["flash"] == "lmflow_fa_cpu"
