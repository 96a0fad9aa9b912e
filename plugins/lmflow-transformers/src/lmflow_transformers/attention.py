"""Attention that is block-diagonal over packed sequences, by PyTorch's scaled dot product attention.

Each sequence attends within its own boundaries, so no mask of T x T entries is ever built, and each call takes
PyTorch's causal kernel, whose memory grows linearly with length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
# Tokens: on two cores with AMX both passes over a shorter sequence took half as long in float32 as in bfloat16.
_FASTER_IN_FLOAT32 = 256
_registered: dict[str, Callable[[AttentionInputs], torch.Tensor]] = {}


class SdpaAttention:
    """PyTorch's attention, on any device."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def implementation(self, device: str) -> str:
        """Register the packed attention with transformers and return its name."""
        return register_attention(PACKED, packed_attention)


@dataclass(frozen=True)
class AttentionInputs:
    """What an attention of packed sequences is called with; T is the number of tokens.

    Attributes:
        query: (1, heads, T, head size).
        key: (1, key-value heads, T, head size); heads are a multiple of them. Without boundaries there may be more
            keys, of a cache: those before the queries.
        value: as key.
        dropout: probability of dropping an attention weight.
        scaling: factor of the scores; 1/sqrt(head size) when None.
        window: how many positions back are seen, itself included; None is all.
        softcap: scores are capped smoothly to this size, as in Gemma 2.
        boundaries: (sequences + 1,) places where sequences begin and end; one sequence when None.
        sinks: learned scores of no token, as in gpt-oss; None in most models.
        beginnings: (sequences, 2 x stretches): where the keys stand that each sequence sees before its own, and how
            many, for one stretch of them after the other; none are seen of one of no keys. None where all see their
            own alone. Keys that a sequence has in common with an earlier one are there once.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    dropout: float = 0.0
    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    boundaries: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    beginnings: torch.Tensor | None = None

    def per_sequence(self, attend: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Attend within each sequence: block-diagonal attention without a mask of T x T entries.

        Args:
            attend: from query, key and value of one sequence, (1, heads, length, head size), to its attended values.
                There are more keys than queries where the sequence has a beginning in another.

        Returns:
            (1, T, heads, head size).
        """
        sequences: list[tuple[torch.Tensor, ...]] = [(self.query, self.key, self.value)]
        if self.boundaries is not None:
            lengths = [end - start for start, end in pairwise(self.boundaries.tolist())]
            states = (self.query, self.key, self.value)
            sequences = list(zip(*(each.split(lengths, dim=2) for each in states), strict=True))
        if self.beginnings is not None:
            found = zip(sequences, self.beginnings.tolist(), strict=True)
            sequences = [self._behind(sequence, beginning) for sequence, beginning in found]
        parts = [attend(q, k, v).transpose(1, 2) for q, k, v in sequences]
        kept = [part.detach() for part in parts]
        return recomputable(torch.cat(parts, dim=1), lambda: torch.cat(kept, dim=1))

    def _behind(self, sequence: tuple[torch.Tensor, ...], beginning: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Return query, key and value of a sequence with the keys and values of its beginning before its own."""
        stretches = [(place, length) for place, length in zip(beginning[::2], beginning[1::2], strict=True) if length]
        if not stretches:
            return sequence
        query, *own = sequence
        joined = []
        for states, mine in zip((self.key, self.value), own, strict=True):
            joined.append(torch.cat([*(states.narrow(2, *stretch) for stretch in stretches), mine], dim=2))
        return (query, *joined)


def register_attention(name: str, attend: Callable[[AttentionInputs], torch.Tensor]) -> str:
    """Make an attention of packed sequences known to transformers, without masks, and return its name.

    Args:
        name: must not contain "sdpa" or "flash", for which transformers has rules of its own.
        attend: from its inputs to the attended values, (1, T, heads, head size).
    """

    def attention(
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
        s_aux: torch.Tensor | None = None,
        shared_beginnings: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        packed = (cu_seq_lens_q, s_aux, shared_beginnings)
        return attend(AttentionInputs(query, key, value, dropout, scaling, sliding_window, softcap, *packed)), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, _no_mask)
    _registered[name] = attend
    return name


def registered_attention(name: str | None) -> Callable[[AttentionInputs], torch.Tensor] | None:
    """Return the attention that was registered by a name; None where there is none."""
    return None if name is None else _registered.get(name)


def takes_attention_mask(network: Any) -> bool:
    """Whether a transformers model attends as its attention mask says; attentions of packed sequences have none."""
    return present_attention(network) not in _registered


def present_attention(network: Any) -> str:
    """Return how a transformers model attends to text; its images may be attended to in another way."""
    implementation: str = network.config.get_text_config()._attn_implementation
    return implementation


def attend_with(network: Any, implementation: str) -> None:
    """Let a transformers model attend to text with an implementation.

    What sees images is left as it is: packed sequences are attended to causally, and patches of an image are not.
    """
    config = network.config
    text = config.get_text_config()
    parts = [name for name in config.sub_configs if getattr(config, name, None) is text]
    network.set_attn_implementation({parts[0]: implementation} if parts else implementation)


@contextmanager
def using_attention(network: Any, implementation: str) -> Iterator[None]:
    """For the time of the context, let a transformers model attend to text with another implementation."""
    own = present_attention(network)
    attend_with(network, implementation)
    try:
        yield
    finally:
        attend_with(network, own)


def _no_mask(*_: Any, **__: Any) -> None:
    """Build no mask: boundaries say everything."""


def packed_attention(inputs: AttentionInputs) -> torch.Tensor:
    """Attend causally within each packed sequence.

    Raises:
        RequestError: the model uses attention sinks, which this attention does not have.
    """
    if inputs.sinks is not None:
        raise RequestError("this model uses attention sinks, which --attention sdpa does not support")

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if _is_slow(q, k):
            wide = q.float(), k.float(), v.float()
            return _attend(*wide, inputs.dropout, inputs.scaling, inputs.window, inputs.softcap).to(q.dtype)
        return _attend(q, k, v, inputs.dropout, inputs.scaling, inputs.window, inputs.softcap)

    return inputs.per_sequence(attend)


def _is_slow(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether a processor's kernel, mostly its backward, takes longer in the format of the query than in float32."""
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and query.requires_grad
        and torch.is_grad_enabled()
        and key.shape[2] < _FASTER_IN_FLOAT32
    )


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
