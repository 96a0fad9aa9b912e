"""Examples that are too long: how they are cut, and when they are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence


def longest_sequence(example: EncodedExample) -> int:
    """Return the number of tokens of the longest sequence."""
    if len(example.sequences) == 1:
        return len(example.sequences[0].input_ids)
    return max((len(sequence.input_ids) for sequence in example.sequences), default=0)


def truncated(example: EncodedExample, limit: int) -> EncodedExample:
    """Cut each sequence to at most ``limit`` tokens, before an image where the limit falls into its tokens."""
    cut = (_part(sequence, 0, _end(sequence, 0, limit)) for sequence in example.sequences)
    return EncodedExample(tuple(cut), example.numbers)


def split(example: EncodedExample, limit: int) -> list[EncodedExample]:
    """Return the pieces of an example, each of at most ``limit`` tokens; no piece ends within an image.

    None are returned for an example of several sequences, whose pieces would not belong together, and where an image
    alone is longer than the limit.
    """
    if len(example.sequences) != 1:
        return []
    try:
        return [EncodedExample((piece,), example.numbers) for piece in _pieces(example.sequences[0], limit)]
    except _ImageTooLong:
        return []


class _ImageTooLong(Exception):
    """The tokens of an image fit into no piece."""


def _pieces(sequence: EncodedSequence, limit: int) -> Iterator[EncodedSequence]:
    start = 0
    while start < len(sequence.input_ids):
        end = _end(sequence, start, limit)
        if end == start:
            raise _ImageTooLong
        yield _part(sequence, start, end)
        start = end


def _end(sequence: EncodedSequence, start: int, limit: int) -> int:
    """Return where a part ends that begins at ``start``: at the limit, or before the image that stands there."""
    end = min(start + limit, len(sequence.input_ids))
    within = (media.start for media in sequence.media if media.start < end < media.start + media.tokens)
    return next(within, end)


def _part(sequence: EncodedSequence, start: int, end: int) -> EncodedSequence:
    media = tuple(replace(m, start=m.start - start) for m in sequence.media if start <= m.start < end)
    return EncodedSequence(sequence.input_ids[start:end], sequence.labels[start:end], media)
