"""Sequences of an example that begin alike, as answers to one prompt do: the beginning is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence

# A shorter beginning costs more to attend to apart than it saves.
SHORTEST = 16


@dataclass(frozen=True)
class Part:
    """What of a sequence goes through the network.

    Attributes:
        sequence: the whole of it.
        start: where the part begins, in the sequence; what stands before is that of the example's first sequence.
        origin: where that first sequence begins, in the batch.
    """

    sequence: EncodedSequence
    start: int = 0
    origin: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of the part."""
        return len(self.sequence.input_ids) - self.start


def parts_of(examples: Sequence[EncodedExample], shortest: int | None = None) -> Iterator[Part]:
    """Yield the parts of all sequences of some examples, without what a sequence has in common with its first.

    A beginning ends before a token is predicted that is learned, so that every position has one target at most. Where
    there are images it is not shared: their positions are not those of their tokens. One of fewer than ``shortest``
    tokens, :data:`SHORTEST` when None, is not shared either.
    """
    place, least = 0, SHORTEST if shortest is None else shortest
    for example in examples:
        origin, first = place, example.sequences[0] if example.sequences else None
        for sequence in example.sequences:
            start = 0 if first is sequence or first is None else _beginning(first, sequence)
            part = Part(sequence, start, origin) if start >= least else Part(sequence)
            place += part.tokens
            yield part


def _beginning(first: EncodedSequence, other: EncodedSequence) -> int:
    if first.media or other.media:
        return 0
    most = min(_positions_without_target(first), _positions_without_target(other))
    mine, its = list(first.input_ids[:most]), list(other.input_ids[:most])
    if mine == its:
        return most
    return next(place for place in range(most) if mine[place] != its[place])


def _positions_without_target(sequence: EncodedSequence) -> int:
    """Return how many positions at the start predict nothing that is learned; the last position is never counted."""
    last = len(sequence.labels) - 1
    return next((place for place in range(last) if sequence.labels[place + 1] != IGNORE), last)
