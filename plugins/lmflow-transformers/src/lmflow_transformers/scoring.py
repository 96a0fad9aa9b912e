"""How likely a network finds sequences, or the number it gives them: several in a pass where they stay isolated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch

from lmflow_core.api import EncodedExample, EncodedSequence, Score
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batches import Batch, MediaInputs, collate
from lmflow_transformers.isolation import isolates_sequences, masked_attention
from lmflow_transformers.likelihood.cross_entropy import token_scores
from lmflow_transformers.likelihood.head import Head, head_is_plain
from lmflow_transformers.likelihood.network import hidden_states, labelled_logits
from lmflow_transformers.regression import check_values, sequence_values
from lmflow_transformers.rotary import follows_length

_SCORED_AT_ONCE = 2048
_LOSS_CHUNK = 512


@torch.no_grad()
def scores(
    network: Any, sequences: Iterable[EncodedSequence], packed: str, media_inputs: MediaInputs | None
) -> Iterator[Score]:
    """Yield each sequence's summed NLL and its count of right guesses.

    Args:
        network: a transformers model with a head.
        sequences: of any length.
        packed: the attention of packed sequences, as transformers knows it.
        media_inputs: makes what the network takes of images; needed where there are any.
    """
    for batch in _collated(network, sequences, packed, media_inputs):
        yield from _scores(network, batch)


@torch.no_grad()
def values(network: Any, sequences: Iterable[EncodedSequence], packed: str) -> Iterator[float]:
    """Yield the number that a network of the task ``regression`` gives to each sequence.

    Args:
        network: a transformers model with a head for one number.
        sequences: of any length.
        packed: the attention of packed sequences, as transformers knows it.

    Raises:
        ModelError: its head is not known.
    """
    check_values(network)
    for batch in _collated(network, sequences, packed, None):
        yield from sequence_values(network, batch).tolist()


def _collated(
    network: Any, sequences: Iterable[EncodedSequence], packed: str, media_inputs: MediaInputs | None
) -> Iterator[Batch]:
    """Yield batches of sequences, for which the network is set."""
    network.eval()
    isolated = isolates_sequences(network, packed)
    with using_attention(network, packed if isolated else masked_attention(network)):
        together = isolated and not follows_length(network.config)
        for batch in _batches(sequences, _SCORED_AT_ONCE if together else 0):
            examples = [EncodedExample((sequence,)) for sequence in batch]
            yield collate(examples, isolated=isolated, media_inputs=media_inputs).to(network.device)


def _scores(network: Any, batch: Batch) -> Iterator[Score]:
    labelled = batch.labelled
    targets = batch.targets[labelled]
    if head_is_plain(network):
        nll, right = token_scores(hidden_states(network, batch, labelled), targets, Head.of(network), _LOSS_CHUNK)
    else:
        logits = labelled_logits(network, batch)
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        right = logits.argmax(-1) == targets
    counts = [int(labelled[start:end].sum()) for start, end in pairwise(batch.ends.tolist())]
    for part, guessed, count in zip(nll.split(counts), right.split(counts), counts, strict=True):
        yield Score(float(part.double().sum()), count, int(guessed.sum()))


def _batches(sequences: Iterable[EncodedSequence], at_once: int) -> Iterator[list[EncodedSequence]]:
    """Yield sequences together up to a number of tokens; a longer one comes alone."""
    batch: list[EncodedSequence] = []
    size = 0
    for sequence in sequences:
        if batch and size + len(sequence.input_ids) > at_once:
            yield batch
            batch, size = [], 0
        batch.append(sequence)
        size += len(sequence.input_ids)
    if batch:
        yield batch
