"""Examples to encoded rows that fit the model: lengths, counts and the fingerprint of what will be trained."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from lmflow_core.contracts import IGNORE, Encoded
from lmflow_core.conversations import Segment
from lmflow_core.encoding import Encoder
from lmflow_core.errors import DataError
from lmflow_core.examples import Located

_BATCH = 512


class EncodedRows:
    """Encoded examples end to end in two arrays of 32-bit integers, so that millions of tokens stay small."""

    def __init__(self) -> None:
        self._input_ids = array("i")
        self._labels = array("i")
        self._ends = array("q", [0])

    def append(self, row: Encoded) -> None:
        """Add one example."""
        self._input_ids.extend(row.input_ids)
        self._labels.extend(row.labels)
        self._ends.append(len(self._input_ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, position: int) -> Encoded:
        if not 0 <= position < len(self):
            raise IndexError(position)
        part = slice(self._ends[position], self._ends[position + 1])
        return Encoded(self._input_ids[part], self._labels[part])

    def __iter__(self) -> Iterator[Encoded]:
        return (self[position] for position in range(len(self)))

    @property
    def tokens(self) -> int:
        """Number of tokens in all examples."""
        return len(self._input_ids)

    def fingerprint(self) -> str:
        """Return a digest of every id, label and boundary."""
        digest = hashlib.sha256()
        for values in (self._input_ids, self._labels, self._ends):
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]


@dataclass
class Counts:
    """What became of the rows. ``trained_tokens`` are labelled tokens that something precedes."""

    rows: int = 0
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    too_long: int = 0
    dropped: int = 0
    truncated: int = 0
    split: int = 0
    untrained: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)


def trained_tokens(row: Encoded) -> int:
    """Return how many tokens of a row are learned; the first never is, since nothing predicts it."""
    return sum(label != IGNORE for label in row.labels[1:])


class Preparer:
    """Encodes located examples and applies the length policy. ``max_length`` is in tokens, None is no limit."""

    def __init__(self, encoder: Encoder, max_length: int | None, policy: str) -> None:
        self._encoder = encoder
        self._max_length = max_length
        self._policy = policy
        self.counts = Counts()
        self._first_too_long: Located | None = None

    def encode(self, examples: Iterable[Located]) -> Iterator[tuple[Located, Encoded]]:
        """Yield each example with its encoding, before any length policy.

        Raises:
            DataError: a conversation does not fit the template.
        """
        source = iter(examples)
        while batch := list(itertools.islice(source, _BATCH)):
            segments = [self._segments(located) for located in batch]
            yield from zip(batch, self._encoder.encode_segments(segments), strict=True)

    def _segments(self, located: Located) -> Sequence[Segment]:
        try:
            return self._encoder.segments(located.example)
        except ValueError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error

    def prepare(self, examples: Iterable[Located]) -> EncodedRows:
        """Encode examples into rows that fit.

        Raises:
            DataError: rows are too long and the policy is ``error``, or nothing is left to train on.
        """
        rows = EncodedRows()
        for located, encoded in self.encode(examples):
            self.counts.rows += 1
            for part in self._fitted(located, encoded):
                self._keep(rows, part)
        self._check()
        return rows

    def _keep(self, rows: EncodedRows, part: Encoded) -> None:
        trained = trained_tokens(part)
        if not trained:
            self.counts.untrained += 1
            return
        rows.append(part)
        self.counts.examples += 1
        self.counts.tokens += len(part.input_ids)
        self.counts.trained_tokens += trained

    def _fitted(self, located: Located, row: Encoded) -> list[Encoded]:
        length = len(row.input_ids)
        self.counts.longest = max(self.counts.longest, length)
        if self._max_length is None or length <= self._max_length:
            return [row]
        self.counts.too_long += 1
        self._first_too_long = self._first_too_long or located
        return self._shortened(row, self._max_length)

    def _shortened(self, row: Encoded, limit: int) -> list[Encoded]:
        if self._policy == "truncate":
            self.counts.truncated += 1
            return [Encoded(row.input_ids[:limit], row.labels[:limit])]
        if self._policy == "split":
            self.counts.split += 1
            starts = range(0, len(row.input_ids), limit)
            return [Encoded(row.input_ids[at : at + limit], row.labels[at : at + limit]) for at in starts]
        self.counts.dropped += 1
        return []

    def _check(self) -> None:
        if self._policy == "error" and self._first_too_long is not None:
            first = self._first_too_long
            raise DataError(
                f"{self.counts.too_long} of {self.counts.rows} rows are longer than {self._max_length} tokens "
                f"(this is the first; the longest has {self.counts.longest}). Raise --max-length, or choose "
                "--length-policy drop, truncate or split",
                file=first.file,
                row=first.row,
            )
        if not self.counts.examples:
            raise DataError(
                f"nothing to train on: none of the {self.counts.rows} rows has a trainable token "
                f"(dropped as too long: {self.counts.dropped}, without a trainable token: {self.counts.untrained})"
            )
