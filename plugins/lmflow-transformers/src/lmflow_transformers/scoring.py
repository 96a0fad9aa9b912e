"""How likely a network finds sequences, or the number it gives them: several in a pass where they stay isolated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import torch

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, Score
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batches import Batch, MediaInputs, collate
from lmflow_transformers.isolation import isolates_sequences, masked_attention, packing_of
from lmflow_transformers.lean.reading import reading
from lmflow_transformers.likelihood.cross_entropy import scores_of, token_scores
from lmflow_transformers.likelihood.head import Head, head_is_plain
from lmflow_transformers.likelihood.network import hidden_states, labelled_logits
from lmflow_transformers.likelihood.shared_texts import SharedTexts, in_common, passes
from lmflow_transformers.regression import check_values, sequence_values
from lmflow_transformers.rotary import follows_length

_SCORED_AT_ONCE = 2048
_LOSS_CHUNK = 128
# Sequences among which beginnings are shared: so many tokens that are new in each, and so many in all, at most.
_NEW_IN_WINDOW, _WINDOW = 16384, 2**20


@torch.no_grad()
def scores(
    network: Any, sequences: Iterable[EncodedSequence], packed: str, media_inputs: MediaInputs | None
) -> Iterator[Score]:
    """Yield each sequence's summed NLL and its count of right guesses; what sequences begin with alike is read once.

    Args:
        network: a transformers model with a head.
        sequences: of any length.
        packed: the attention of packed sequences, as transformers knows it.
        media_inputs: makes what the network takes of images; needed where there are any.
    """
    network.eval()
    if media_inputs is not None or follows_length(network.config) or not packing_of(network, packed).shared:
        for batch in _collated(network, sequences, packed, media_inputs):
            yield from _scores(network, batch)
        return
    with using_attention(network, packed):
        for window in _windows(sequences):
            yield from _shared_scores(network, window)


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
        hidden = hidden_states(network, batch, labelled)
        nll, right = token_scores(hidden, _places(targets), targets, Head.of(network), _LOSS_CHUNK)
    else:
        nll, right = scores_of(labelled_logits(network, batch), _places(targets), targets)
    counts = [int(labelled[start:end].sum()) for start, end in pairwise(batch.ends.tolist())]
    yield from _summed(nll, right, counts)


def _places(targets: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(targets), device=targets.device)


def _summed(nll: torch.Tensor, right: torch.Tensor, counts: Sequence[int]) -> Iterator[Score]:
    """Yield the scores of sequences of which each has a number of targets."""
    nll, right = nll.double().cpu(), right.cpu()
    for start, end in pairwise(accumulate(counts, initial=0)):
        yield Score(float(nll[start:end].sum()), end - start, int(right[start:end].sum()))


def _windows(sequences: Iterable[EncodedSequence]) -> Iterator[list[EncodedSequence]]:
    """Yield sequences together: more of those that begin as the one before them does."""
    window: list[EncodedSequence] = []
    before: list[int] = []
    new = tokens = 0
    for sequence in sequences:
        ids = list(sequence.input_ids)
        length = len(ids)
        own, before = length - in_common(before, ids), ids
        if window and (new + own > _NEW_IN_WINDOW or tokens + length > _WINDOW):
            yield window
            window, new, tokens, own = [], 0, 0, length
        window.append(sequence)
        new, tokens = new + own, tokens + length
    if window:
        yield window


def _shared_scores(network: Any, sequences: Sequence[EncodedSequence]) -> Iterator[Score]:
    """Yield the scores of some sequences, in order."""
    predicted = [[at for at, label in enumerate(each.labels[1:]) if label != IGNORE] for each in sequences]
    # What stands behind the last position that predicts need not be read.
    texts = [list(each.input_ids[: at[-1] + 1]) if at else [] for each, at in zip(sequences, predicted, strict=True)]
    found = [Score(0.0, 0, 0)] * len(sequences)
    read = [number for number, text in enumerate(texts) if text]
    for places, laid in passes([texts[number] for number in read]):
        numbers = [read[place] for place in places]
        rows = [*chain.from_iterable(laid.rows(at, predicted[number]) for at, number in enumerate(numbers))]
        targets = [sequences[number].labels[at + 1] for number in numbers for at in predicted[number]]
        nll, right = _pass_scores(network, laid, rows, targets)
        scored = _summed(nll, right, [len(predicted[number]) for number in numbers])
        for number, score in zip(numbers, scored, strict=True):
            found[number] = score
    yield from found


def _pass_scores(
    network: Any, laid: SharedTexts, rows: Sequence[int], targets: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each target, predicted at a place of the row, its NLL and whether it is the likeliest."""
    device = network.device
    inputs = {name: tensor.to(device) for name, tensor in laid.inputs().items()}
    predicting, places = torch.tensor(rows, device=device).unique(return_inverse=True)
    aimed = torch.tensor(targets, device=device)
    if head_is_plain(network):
        with reading(network, predicting, inputs["input_ids"].shape[1]):
            hidden = network.base_model(use_cache=False, **inputs).last_hidden_state[0, predicting]
        return token_scores(hidden, places, aimed, Head.of(network), _LOSS_CHUNK)
    logits = network(use_cache=False, **inputs).logits[0, predicting].float()
    return scores_of(logits, places, aimed)


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
