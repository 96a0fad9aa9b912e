"""Whether texts that share a pass of a model do not reach each other: tried, not believed."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from lmflow_core.api import RequestError
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batching.shared_pass import Part, prepare_passes, shared_pass
from lmflow_transformers.batching.texts import WholeTextCache
from lmflow_transformers.comparing import alike
from lmflow_transformers.isolation import attends_by_mask, masked_attention
from lmflow_transformers.models import CausalModel
from lmflow_transformers.rotary import follows_length

_FIRST, _SECOND = (3, 5, 7, 9, 11, 13, 2), (2, 4, 6, 8, 10, 12, 14, 3, 5, 9)
# How many tokens of each text are read in each of the passes.
_PASSES = ((6, 4), (1, 5), (0, 1))

_bytes_per_token: weakref.WeakKeyDictionary[torch.nn.Module, int | None] = weakref.WeakKeyDictionary()


def cache_bytes_per_token(model: CausalModel) -> int | None:
    """Return how much memory the keys and values of a token take; None where texts cannot share passes of a model.

    They cannot where positions follow the longest text of a pass, in recurrent layers, and in attentions of a model's
    own. Tried once for each network.
    """
    network = model.base
    if network not in _bytes_per_token:
        _bytes_per_token[network] = _tried(model)
    return _bytes_per_token[network]


@torch.inference_mode()
def _tried(model: CausalModel) -> int | None:
    network, text = model.base, model.base.config.get_text_config()
    known = inspect.signature(network.forward).parameters
    if follows_length(network.config) or getattr(network, "_is_stateful", False) or "position_ids" not in known:
        return None
    if attends_by_mask(network):
        return None
    texts = [[token % text.vocab_size for token in ids] for ids in (_FIRST, _SECOND)]
    caches = [WholeTextCache(len(ids)) for ids in texts]
    prepare_passes(model)
    try:
        together = _read(model, texts, caches)
    except (AttributeError, KeyError, RequestError, RuntimeError, TypeError, ValueError):
        return None  # the model is not made of the layers that shared passes need
    exact = network.dtype == torch.float32
    for logits, ids in zip(together, texts, strict=True):
        if not alike(logits, _alone(network, ids), 1e-3 if exact else 5e-2):
            return None
    return max(1, caches[0].nbytes // len(texts[0]))


def _read(model: CausalModel, texts: Sequence[Sequence[int]], caches: Sequence[WholeTextCache]) -> list[torch.Tensor]:
    """Return the logits of each text, (length, vocabulary), read in shared passes."""
    told: list[list[torch.Tensor]] = [[] for _ in texts]
    for counts in _PASSES:
        taking = [at for at, count in enumerate(counts) if count]
        parts = [Part(caches[at], texts[at][caches[at].seen :][: counts[at]], counts[at]) for at in taking]
        for at, logits in zip(taking, shared_pass(model, parts), strict=True):
            caches[at].end(counts[at])
            told[at].append(logits)
    return [torch.cat(logits) for logits in told]


def _alone(network: Any, ids: Sequence[int]) -> torch.Tensor:
    with using_attention(network, masked_attention(network)):
        logits: torch.Tensor = network(
            input_ids=torch.tensor([list(ids)], device=network.device), use_cache=False
        ).logits[0]
    return logits.float()
