"""Attention that keeps packed examples apart, over PyTorch's scaled dot product attention.

Each example attends within its own boundaries, so no mask of T x T entries is ever built, and each call takes
PyTorch's causal kernel, whose memory grows linearly with length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lmflow_core.api import RequestError
from lmflow_transformers.lean import recomputable

# The name must not contain "sdpa": transformers would then refuse models that are only barred from plain SDPA.
PACKED = "lmflow_packed"
_without_masks: set[str] = set()


class SdpaAttention:
    """PyTorch's attention, on any device."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def implementation(self, device: str) -> str:
        """Register the packed attention with transformers and return its name."""
        return register_attention(PACKED, packed_attention)


def register_attention(name: str, function: Callable[..., tuple[torch.Tensor, None]]) -> str:
    """Make a packed attention known to transformers, without masks, and return its name.

    The name must not contain "sdpa" or "flash", for which transformers has rules of its own.
    """
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, _no_mask)
    _without_masks.add(name)
    return name


def heeds_masks(network: Any) -> bool:
    """Whether a transformers model attends as its mask says; attentions of packed examples have none."""
    return network.config._attn_implementation not in _without_masks


@contextmanager
def using_attention(network: Any, implementation: str) -> Iterator[None]:
    """For the time of the context, let a transformers model attend with another implementation."""
    own = network.config._attn_implementation
    network.set_attn_implementation(implementation)
    try:
        yield
    finally:
        network.set_attn_implementation(own)


def _no_mask(*_: Any, **__: Any) -> None:
    """Build no mask: boundaries say everything."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each packed example.

    Args:
        module: the attention layer, unused.
        query: (1, heads, T, head size).
        key: (1, key-value heads, T, head size); heads are a multiple of them. Without boundaries there may be
            more keys, of a cache: those before the queries.
        value: as key.
        attention_mask: ignored; there is none.
        dropout: probability of dropping an attention weight.
        scaling: factor of the scores; 1/sqrt(head size) when None.
        sliding_window: how many positions back are seen, itself included; None is all.
        softcap: scores are capped smoothly to this size, as in Gemma 2.
        cu_seq_lens_q: (examples + 1,) boundaries; one example when None.
        others: what other attentions of transformers take.

    Returns:
        (1, T, heads, head size), and None for the weights, which are never formed.

    Raises:
        RequestError: the model uses attention sinks, which this attention does not have.
    """
    if others.get("s_aux") is not None:
        raise RequestError("this model uses attention sinks, which --attention sdpa does not support")

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return _attend(q, k, v, dropout, scaling, sliding_window, softcap)

    return apart(attend, query, key, value, cu_seq_lens_q), None


def apart(
    attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor | None,
) -> torch.Tensor:
    """Attend within each packed example.

    Args:
        attend: from query, key and value of one example, (1, heads, length, head size), to its attended values.
        query: (1, heads, T, head size).
        key: (1, key-value heads, T, head size); more than T only where there are no boundaries.
        value: as key.
        boundaries: (examples + 1,) places where examples begin and end; one example when None.

    Returns:
        (1, T, heads, head size).
    """
    examples = [(query, key, value)]
    if boundaries is not None:
        lengths = [end - start for start, end in pairwise(boundaries.tolist())]
        examples = list(zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True))
    parts = [attend(q, k, v).transpose(1, 2) for q, k, v in examples]
    kept = [part.detach() for part in parts]
    return recomputable(torch.cat(parts, dim=1), lambda: torch.cat(kept, dim=1))


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    if softcap is not None:
        return _capped_attention(query, key, value, scaling, window, softcap)
    queries, keys = query.shape[2], key.shape[2]
    if (window is None or window >= keys) and queries in (1, keys):
        # One query sees every key; PyTorch's causal kernel would show it the first alone.
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=queries > 1, scale=scaling, enable_gqa=grouped
        )
    band = _band(queries, keys, window, query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=band, dropout_p=dropout, scale=scaling, enable_gqa=grouped
    )


def _band(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Return a (queries, keys) mask, true where a query (row) sees a key (column). The last of both are the same."""
    before = keys - queries
    causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(before)
    return causal if window is None else causal & torch.ones_like(causal).triu(before + 1 - window)


def _capped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float,
) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    seen = _band(query.shape[2], key.shape[2], window, query.device)
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ value
