"""Whether a model keeps packed sequences isolated: tried, not believed.

Boundaries reach a model's attention only where it attends through transformers' interface and nothing else joins
neighbours: recurrent layers (Mamba) and attentions of a model's own (Bloom, MPT) carry one sequence into the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lmflow_core.api import EncodedSequence
from lmflow_transformers.attention import present_attention, takes_attention_mask, using_attention
from lmflow_transformers.batches import packed_inputs
from lmflow_transformers.comparing import alike

_FIRST, _OTHER, _SECOND = (3, 5, 7, 9, 11, 13), (14, 12, 10, 8, 6, 4), (2, 4, 6, 8, 10, 12, 14, 3, 5)


def masked_attention(network: Any) -> str:
    """Return the attention with which a transformers model follows masks: its present one, or its usual one."""
    if takes_attention_mask(network):
        return present_attention(network)
    return "sdpa" if network._supports_sdpa else "eager"


@torch.no_grad()
def isolates_sequences(network: Any, implementation: str) -> bool:
    """Whether packed sequences do not reach each other, and each is attended to as the model itself does.

    Args:
        network: a transformers model.
        implementation: the attention of packed sequences, as registered with transformers.
    """
    if getattr(network.config.get_text_config(), "attention_chunk_size", None) is not None:
        return False  # attention in chunks is in the mask, which packed sequences have none of
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
    exact = together.dtype == torch.float32 and network.dtype == torch.float32
    return alike(together, changed, 1e-5 if exact else 2e-2) and alike(together, own, 1e-3 if exact else 5e-2)


def _second(network: Any, first: Sequence[int], second: Sequence[int]) -> torch.Tensor:
    """Return what a network gives at each position of the second of two packed sequences, (length, size)."""
    sequences = [EncodedSequence(ids, ids) for ids in (_ids(network, part)[0].tolist() for part in (first, second))]
    inputs = {name: tensor.to(network.device) for name, tensor in packed_inputs(sequences).items()}
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
