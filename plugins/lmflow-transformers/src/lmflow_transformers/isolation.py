"""Whether a model keeps packed sequences isolated: tried, not believed.

Boundaries reach a model's attention only where it attends through transformers' interface and nothing else joins
neighbours: recurrent layers (Mamba) and attentions of a model's own (Bloom, MPT) carry one sequence into the next.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence
from lmflow_transformers.attention import present_attention, takes_attention_mask, using_attention
from lmflow_transformers.batches import packed_inputs
from lmflow_transformers.beginnings import Part, parts_of
from lmflow_transformers.comparing import alike

_FIRST, _OTHER, _SECOND = (3, 5, 7, 9, 11, 13), (14, 12, 10, 8, 6, 4), (2, 4, 6, 8, 10, 12, 14, 3, 5)


class Packing(NamedTuple):
    """What packed sequences are to a model.

    Attributes:
        isolated: whether they do not reach each other.
        shared: whether one can attend to a beginning that stands in another.
    """

    isolated: bool
    shared: bool


_tried: weakref.WeakKeyDictionary[Any, dict[str, Packing]] = weakref.WeakKeyDictionary()


def packing_of(network: Any, implementation: str) -> Packing:
    """Return what packed sequences are to a transformers model with an attention; each is tried once."""
    known = _tried.setdefault(network, {})
    if implementation not in known:
        isolated = isolates_sequences(network, implementation)
        known[implementation] = Packing(isolated, isolated and shares_beginnings(network, implementation))
    return known[implementation]


def masked_attention(network: Any) -> str:
    """Return the attention with which a transformers model follows masks: its present one, or its usual one."""
    if takes_attention_mask(network):
        return present_attention(network)
    return "sdpa" if network._supports_sdpa else "eager"


def attends_by_mask(network: Any) -> bool:
    """Whether some attention of a transformers model is in its mask alone, which packed sequences have none of.

    So it is where a model attends in chunks, and where tokens of an image attend to later ones of it (Gemma 3).
    """
    chunked = getattr(network.config.get_text_config(), "attention_chunk_size", None) is not None
    sees = getattr(network.config, "vision_config", None) is not None
    return chunked or (sees and "token_type_ids" in inspect.signature(network.forward).parameters)


@torch.no_grad()
def isolates_sequences(network: Any, implementation: str) -> bool:
    """Whether packed sequences do not reach each other, and each is attended to as the model itself does.

    Args:
        network: a transformers model.
        implementation: the attention of packed sequences, as registered with transformers.
    """
    if attends_by_mask(network):
        return False
    training = network.training
    network.eval()
    try:
        with using_attention(network, implementation):
            together, changed = _second(network, _FIRST, _SECOND), _second(network, _OTHER, _SECOND)
        with using_attention(network, masked_attention(network)):
            own = _states(network, {"input_ids": _ids(network, _SECOND)})
    except TypeError:
        return False  # the model has no use for boundaries
    finally:
        network.train(training)
    exact = _is_exact(network, together)
    return alike(together, changed, 1e-5 if exact else 2e-2) and alike(together, own, 1e-3 if exact else 5e-2)


@torch.no_grad()
def shares_beginnings(network: Any, implementation: str) -> bool:
    """Whether a packed sequence can attend to a beginning that stands in an earlier one as if it were its own.

    Args:
        network: a transformers model that keeps packed sequences isolated with this attention.
        implementation: the attention of packed sequences, as registered with transformers.
    """
    training = network.training
    network.eval()
    try:
        with using_attention(network, implementation):
            apart = _second(network, (*_FIRST, *_OTHER), (*_FIRST, *_SECOND))
            shared = _second(network, (*_FIRST, *_OTHER), (*_FIRST, *_SECOND), shortest=1)
    except TypeError:
        return False  # the model has no use for beginnings
    finally:
        network.train(training)
    last = len(_SECOND)
    return alike(shared[-last:], apart[-last:], 1e-4 if _is_exact(network, shared) else 2e-2)


def _is_exact(network: Any, logits: torch.Tensor) -> bool:
    return logits.dtype == torch.float32 and network.dtype == torch.float32


def _second(network: Any, first: Sequence[int], second: Sequence[int], shortest: int | None = None) -> torch.Tensor:
    """Return what a network gives at each position of the second of two packed sequences, (length, size).

    Those of their common beginning are left out where it is shared, as one of at least ``shortest`` tokens is.
    """
    ids = [_ids(network, each)[0].tolist() for each in (first, second)]
    sequences = tuple(EncodedSequence(each, [IGNORE] * len(each)) for each in ids)
    parts = [*map(Part, sequences)] if shortest is None else [*parts_of([EncodedExample(sequences)], shortest)]
    inputs = {name: tensor.to(network.device) for name, tensor in packed_inputs(parts).items()}
    return _states(network, inputs)[len(first) :]


def _states(network: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return a network's logits, or what its trunk gives where it predicts no tokens: (positions, size), float32."""
    if network.get_output_embeddings() is None:
        states: torch.Tensor = network.base_model(use_cache=False, **inputs).last_hidden_state[0]
    else:
        states = network(use_cache=False, **inputs).logits[0]
    return states.float()


def _ids(network: Any, ids: Sequence[int]) -> torch.Tensor:
    return torch.tensor([ids], device=network.device) % network.config.get_text_config().vocab_size
