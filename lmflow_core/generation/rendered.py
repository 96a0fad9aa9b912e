"""Texts that a chat template has rendered already, as harnesses pass them, to the ids of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.examples import Segment
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.data.encoding import Encoder


def encode_segments(tokenizer: Tokenizer, rendered: Sequence[Sequence[Segment]]) -> list[list[int]]:
    """Return the ids of texts in segments: control tokens are made of those that may hold some, and of no other.

    Where there are none the ids are those of the whole text, wherever its segments end. Nothing is put before or
    behind.
    """
    return [list(sequence.input_ids) for sequence in Encoder(tokenizer, None).encode_segments(rendered)]
