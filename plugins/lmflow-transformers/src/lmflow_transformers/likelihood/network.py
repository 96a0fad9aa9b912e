"""A batch through a network: its hidden states, and how likely the labelled tokens are."""

from __future__ import annotations

from typing import Any

import torch

from lmflow_transformers.batches import Batch, Inputs
from lmflow_transformers.lean.reading import reading
from lmflow_transformers.likelihood.cross_entropy import fused_cross_entropy
from lmflow_transformers.likelihood.head import Head, head_is_plain
from lmflow_transformers.likelihood.logprobs import token_logprobs


def hidden_states(network: Any, batch: Batch, places: torch.Tensor | None = None) -> torch.Tensor:
    """Return what stands before the head, (positions, hidden size): of all T of a batch, or of some.

    Args:
        network: a transformers model with a head; adapters may be inside of it.
        batch: of T tokens.
        places: the positions that are wanted, (T,), bool, or (n,), int64; None for all of them.
    """
    if places is None or len(batch.inputs) > 1:
        hidden = of_batch(torch.cat([_passed(network, inputs) for inputs in batch.inputs]), batch)
        return hidden if places is None else hidden[places]
    (inputs,) = batch.inputs
    with reading(network, places, inputs["input_ids"].shape[1]):
        return of_batch(_passed(network, inputs), batch)[places]


def _passed(network: Any, inputs: Inputs) -> torch.Tensor:
    hidden: torch.Tensor = network.base_model(use_cache=False, **inputs).last_hidden_state[0]
    return hidden


def labelled_logits(network: Any, batch: Batch) -> torch.Tensor:
    """Return the network's own logits at the labelled positions, (labelled, vocabulary), float32."""
    passes = [network(use_cache=False, **inputs).logits[0] for inputs in batch.inputs]
    return of_batch(torch.cat(passes), batch)[batch.labelled].float()


def of_batch(positions: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return what belongs to the tokens of a batch, without that of a sequence which only goes with it."""
    return positions if len(positions) == len(batch.targets) else positions[: len(batch.targets)]


def summed_cross_entropy(network: Any, batch: Batch, chunk: int) -> torch.Tensor:
    """Return the cross-entropy of the labelled tokens of a batch, a scalar, float32, summed, in nats.

    Args:
        network: a transformers model with a head. One whose logits are more than those of its head gives them itself.
        batch: of T tokens.
        chunk: labelled positions whose logits exist at a time.
    """
    targets = batch.targets[batch.labelled]
    if not head_is_plain(network):
        return torch.nn.functional.cross_entropy(labelled_logits(network, batch), targets, reduction="sum")
    return fused_cross_entropy(hidden_states(network, batch, batch.labelled), targets, Head.of(network), chunk)


def sequence_logprobs(network: Any, batch: Batch, chunk: int = 256) -> torch.Tensor:
    """Return how likely the labelled tokens of each sequence are together, with gradients.

    Args:
        network: a transformers model with a head.
        batch: of any number of sequences.
        chunk: labelled positions whose logits exist at a time.

    Returns:
        (sequences,), float32, in nats: sums of log-probabilities; 0 for a sequence without labels. Divided by
        ``batch.labels_per_sequence`` they are means over tokens.
    """
    each = labelled_logprobs(network, batch, chunk)
    sums = torch.zeros(len(batch.ends) - 1, dtype=torch.float32, device=each.device)
    return sums.index_add(0, batch.sequence_of_position[batch.labelled], each)


def labelled_logprobs(network: Any, batch: Batch, chunk: int = 256) -> torch.Tensor:
    """Return how likely each labelled token is, with gradients.

    Args:
        network: a transformers model with a head.
        batch: of any number of sequences.
        chunk: labelled positions whose logits exist at a time.

    Returns:
        (labelled,), float32, in nats: log-probabilities at temperature 1, those of the first sequence first.
    """
    targets = batch.targets[batch.labelled]
    if head_is_plain(network):
        return token_logprobs(hidden_states(network, batch, batch.labelled), targets, Head.of(network), chunk)
    return labelled_logits(network, batch).log_softmax(-1).gather(1, targets[:, None])[:, 0]
