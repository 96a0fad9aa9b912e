"""The first rows of some data as they will be trained on: what carries a label, and where images stand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence, Media, Tokenizer
from lmflow_core.data.examples import Located
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.encoded_data import encoded_examples


class Piece(NamedTuple):
    """The text of some tokens that follow each other, and whether they carry labels."""

    text: str
    trained: bool


@dataclass(frozen=True)
class SequencePreview:
    """One sequence: its tokens, their text as a whole and in pieces, and the images in it."""

    input_ids: list[int]
    labels: list[int]
    text: str
    media: tuple[Media, ...]
    pieces: list[Piece]


@dataclass(frozen=True)
class Preview:
    """One row as it will be trained on: the sequences of its example, and the numbers that go with them."""

    file: str
    row: int
    kind: str
    numbers: Mapping[str, tuple[float, ...]]
    sequences: list[SequencePreview]

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences."""
        return sum(len(sequence.input_ids) for sequence in self.sequences)


def preview_data(model: ModelSettings, data: DataSettings, rows: int, catalogue: Catalogue) -> Iterator[Preview]:
    """Yield the first rows, encoded.

    Raises:
        LmflowError: the data or the model's tokenizer cannot be used.
    """
    opened, encoded = encoded_examples(model, data, catalogue, rows)
    for located, example in encoded:
        yield _preview(opened.tokenizer, located, example)


def _preview(tokenizer: Tokenizer, located: Located, example: EncodedExample) -> Preview:
    sequences = [_sequence_preview(tokenizer, sequence) for sequence in example.sequences]
    numbers = {name: values for name, values in example.numbers.items() if not all(map(math.isnan, values))}
    return Preview(str(located.file), located.row, located.example.kind, numbers, sequences)


def _sequence_preview(tokenizer: Tokenizer, sequence: EncodedSequence) -> SequencePreview:
    ids, labels = list(sequence.input_ids), list(sequence.labels)
    return SequencePreview(ids, labels, tokenizer.decode(ids), sequence.media, [*_pieces(tokenizer, sequence)])


def _pieces(tokenizer: Tokenizer, sequence: EncodedSequence) -> Iterator[Piece]:
    # What each token belongs to: an image, or text with or without labels.
    owners: list[Media | bool] = [label >= 0 for label in sequence.labels]
    for media in sequence.media:
        owners[media.start : media.start + media.tokens] = [media] * media.tokens
    for owner, places in itertools.groupby(range(len(owners)), owners.__getitem__):
        if isinstance(owner, Media):
            count = f"{owner.tokens} token{'' if owner.tokens == 1 else 's'}"
            yield Piece(f"[{_name(owner.source)}: {count}]", trained=False)
        else:
            yield Piece(tokenizer.decode([sequence.input_ids[at] for at in places]), owner)


def _name(source: str) -> str:
    """Return what to call an image: the last part of its path, or the kind of one that is written into its address."""
    return source[: source.find(";")] if source.lower().startswith("data:") else Path(source).name
