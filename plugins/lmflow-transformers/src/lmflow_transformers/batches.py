"""Batches without padding: sequences lie end to end in one row, and their boundaries travel with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence
from lmflow_transformers.beginnings import Part, parts_of

Inputs = Mapping[str, torch.Tensor]
# What tells, for each sequence, where in the batch its beginning stands and how long that is: (sequences, 2), int64, or
# more columns where a beginning lies in several stretches.
BEGINNINGS = "shared_beginnings"
# From some sequences to what the network takes of their images beside ids, such as pixel values. Where positions are
# among it, as ``position_ids`` (axes, 1, tokens of all sequences), they take the place of those that count tokens.
MediaInputs = Callable[[Sequence[EncodedSequence]], Inputs]


@dataclass(frozen=True)
class Batch:
    """Examples as a loss is given them; T is the number of tokens that go through the network.

    Those are the tokens of all sequences, one after the other. Where a network can, what a sequence of an example has
    in common with the first before anything is learned goes through once, as part of the first: the second answer to a
    prompt then has the positions of its answer alone, and attends to the prompt where that stands.

    What follows from the tensors: ``tokens``, ``labelled``, ``sequence_of_position``, ``labels_per_sequence``.

    Attributes:
        inputs: what the network is called with, once for each pass. Where it keeps packed sequences isolated, one pass
            takes all of them: ``input_ids`` and ``position_ids`` (1, T), int64, positions restarting at each sequence,
            and their boundaries ``cu_seq_lens_q`` (sequences + 1,), int32; where beginnings are shared also
            ``shared_beginnings`` (sequences, 2), int64: where each sequence's stands, and its length. Else there is a
            pass for each sequence. Behind the T tokens there may be those of a sequence that counts nowhere.
        targets: (T,), int64: the token that follows each position where it is learned, else -100, so that no sequence
            predicts the next one's first token.
        ends: (sequences + 1,), int64, boundaries of the sequences in tokens.
        groups: (examples + 1,), int64, boundaries of the examples in sequences.
        numbers: the named numbers of the examples one after the other, float32. Examples give one or one for each of
            their sequences, all alike; for those without, NaN stands in each of their places. Where all examples give
            one for each labelled token, these lie as the labelled positions do.
        counts: False for a batch whose loss is nobody's: it goes through the network because other processes have one,
            and a sharded model needs all of them in each pass.
    """

    inputs: tuple[Inputs, ...]
    targets: torch.Tensor
    ends: torch.Tensor
    groups: torch.Tensor
    numbers: Inputs
    counts: bool = True

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences; a beginning that goes through once counts in each of them."""
        shared = (inputs[BEGINNINGS][:, 1].sum() for inputs in self.inputs if BEGINNINGS in inputs)
        return len(self.targets) + sum(map(int, shared))

    @property
    def labelled(self) -> torch.Tensor:
        """(T,), bool: the positions whose next token is learned."""
        return self.targets != IGNORE

    @property
    def sequence_of_position(self) -> torch.Tensor:
        """(T,), int64: the number of the sequence that each position belongs to."""
        numbers = torch.arange(len(self.ends) - 1, device=self.ends.device)
        return numbers.repeat_interleave(self.ends.diff())

    @property
    def labels_per_sequence(self) -> torch.Tensor:
        """(sequences,), int64: how many tokens of each sequence are learned."""
        return torch.bincount(self.sequence_of_position[self.labelled], minlength=len(self.ends) - 1)

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device."""

        def moved(tensors: Inputs) -> Inputs:
            return {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()}

        return Batch(
            tuple(map(moved, self.inputs)),
            self.targets.to(device, non_blocking=non_blocking),
            self.ends.to(device, non_blocking=non_blocking),
            self.groups.to(device, non_blocking=non_blocking),
            moved(self.numbers),
            self.counts,
        )


def collate(
    examples: Sequence[EncodedExample],
    *,
    isolated: bool = True,
    shared: bool = False,
    media_inputs: MediaInputs | None = None,
    beside: EncodedSequence | None = None,
    rows: int = 1,
) -> Batch:
    """Return examples as a batch.

    Args:
        examples: at least one.
        isolated: whether the network keeps sequences isolated that are packed into one pass.
        shared: whether the network, which isolates, lets a sequence attend to a beginning that stands in another.
        media_inputs: makes what the network takes of images; needed where there are any.
        beside: goes through the network with the examples, which it isolates, and is no part of the batch otherwise.
        rows: where nothing goes beside them and sequences are isolated, so many tokens, or a multiple, go through the
            network: those that are missing are of a sequence that goes beside them.

    Raises:
        ValueError: there are images and nothing to make inputs of them.
    """
    parts = list(parts_of(examples) if shared else whole(examples))
    targets = [token for part in parts for token in (*part.sequence.labels[part.start + 1 :], IGNORE)]
    beside = beside or _filling(targets, rows)
    behind = [] if beside is None else [Part(beside)]
    passes = [[*parts, *behind]] if isolated else [[part] for part in parts]
    return Batch(
        tuple({**packed_inputs(each, isolated), **_of_media(each, media_inputs)} for each in passes),
        torch.tensor(targets),
        _boundaries(part.tokens for part in parts),
        _boundaries(len(example.sequences) for example in examples),
        _numbers(examples),
    )


def _filling(targets: Sequence[int], rows: int) -> EncodedSequence | None:
    """Return a sequence that makes a row as long as it should be; None where it is, or nothing is learned in it.

    It is made of a token that is learned: such a one stands for no part of an image.
    """
    missing = -len(targets) % rows
    token = next((token for token in targets if token != IGNORE), None)
    return EncodedSequence([token] * missing, [IGNORE] * missing) if missing and token is not None else None


def whole(examples: Iterable[EncodedExample]) -> Iterator[Part]:
    """Yield all sequences of some examples as they are."""
    return (Part(sequence) for example in examples for sequence in example.sequences)


def packed_inputs(parts: Sequence[Part], isolated: bool = True) -> dict[str, torch.Tensor]:
    """Return the ids of some parts (1, T) and, where they are ``isolated``, their positions and boundaries."""
    ids = torch.tensor([[token for part in parts for token in part.sequence.input_ids[part.start :]]])
    if not isolated:
        return {"input_ids": ids}
    positions = [torch.arange(part.start, part.start + part.tokens) for part in parts]
    inputs = {
        "input_ids": ids,
        "position_ids": torch.cat(positions)[None],
        "cu_seq_lens_q": _boundaries(part.tokens for part in parts).to(torch.int32),
    }
    if any(part.start for part in parts):
        inputs[BEGINNINGS] = torch.tensor([[part.origin, part.start] for part in parts])
    return inputs


def _of_media(parts: Sequence[Part], media_inputs: MediaInputs | None) -> Inputs:
    sequences = [part.sequence for part in parts]
    if media_inputs is None:
        if any(sequence.media for sequence in sequences):
            raise ValueError("the data has images, and the model takes none")
        return {}
    inputs = dict(media_inputs(sequences))
    if "position_ids" in inputs:
        inputs["position_ids"] = _of_parts(inputs["position_ids"], parts)
    return inputs


def _of_parts(positions: torch.Tensor, parts: Sequence[Part]) -> torch.Tensor:
    """Return the positions (axes, 1, T) of some parts, from those of the whole sequences."""
    each = positions.split([len(part.sequence.input_ids) for part in parts], dim=-1)
    return torch.cat([of[..., part.start :] for of, part in zip(each, parts, strict=True)], dim=-1)


def _boundaries(lengths: Iterable[int]) -> torch.Tensor:
    return torch.tensor([0, *accumulate(lengths)])


def _numbers(examples: Sequence[EncodedExample]) -> dict[str, torch.Tensor]:
    names = sorted({name for example in examples for name in example.numbers})
    return {name: torch.tensor([*chain.from_iterable(_filled(examples, name))]) for name in names}


def _filled(examples: Sequence[EncodedExample], name: str) -> Iterator[Sequence[float]]:
    given = [(example, example.numbers[name]) for example in examples if name in example.numbers]
    one_each = all(len(values) == 1 for _, values in given)
    for example in examples:
        yield example.numbers.get(name, [float("nan")] * (1 if one_each else len(example.sequences)))
