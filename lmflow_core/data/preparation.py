"""Examples to encoded rows that fit the model: lengths and counts of what will be trained."""

from __future__ import annotations

import gc
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from lmflow_core.contracts.tokens import IGNORE, Encoded
from lmflow_core.data.encoding import Encoder, Runs
from lmflow_core.data.examples import Located
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError

_BATCH, _AHEAD = 1024, 2
_OBJECTS = 500_000


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
    later = row.labels[1:]
    return len(later) - later.count(IGNORE)


def _finished(ahead: deque[tuple[list[Located], Future[list[Encoded]]]]) -> Iterator[tuple[Located, Encoded]]:
    batch, encoded = ahead.popleft()
    return zip(batch, encoded.result(), strict=True)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Look for garbage in cycles less often: a row leaves none, and its many small objects would set off a search each
    time, which took a sixth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Rows(Protocol):
    """Where encoded rows go."""

    def append(self, row: Encoded) -> None:
        """Add one row."""


class Preparer:
    """Encodes located examples and applies the length policy. ``max_length`` is in tokens, None is no limit."""

    def __init__(self, encoder: Encoder, max_length: int | None, policy: str, purpose: str = "train") -> None:
        """Prepare; ``purpose`` is what the rows are for, in the error when none is left."""
        self._purpose = purpose
        self._encoder = encoder
        self._max_length = max_length
        self._policy = policy
        self.counts = Counts()
        self._first_too_long: Located | None = None

    def encode(self, examples: Iterable[Located]) -> Iterator[tuple[Located, Encoded]]:
        """Yield each example with its encoding, before any length policy.

        While the tokenizer works on a batch, which takes no Python, the next one is read and rendered, and what it
        gave for the last is put together.

        Raises:
            DataError: a conversation does not fit the template.
        """
        source = iter(examples)
        ahead: deque[tuple[list[Located], Future[list[Encoded]]]] = deque()
        with ThreadPoolExecutor(_AHEAD) as pool:
            while batch := list(itertools.islice(source, _BATCH)):
                runs = [self._runs(located) for located in batch]
                ahead.append((batch, pool.submit(self._encoder.encode_runs, runs)))
                if len(ahead) > _AHEAD:
                    yield from _finished(ahead)
            while ahead:
                yield from _finished(ahead)

    def _runs(self, located: Located) -> Runs:
        try:
            return self._encoder.runs(self._encoder.segments(located.example))
        except ValueError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error

    def prepare(self, examples: Iterable[Located]) -> EncodedRows:
        """Encode examples into rows that fit, in memory.

        Raises:
            DataError: as :meth:`prepare_into`.
        """
        rows = EncodedRows()
        self.prepare_into(rows, examples)
        return rows

    def prepare_into(self, rows: Rows, examples: Iterable[Located]) -> None:
        """Encode examples and append those that fit.

        Raises:
            DataError: rows are too long and the policy is ``error``, or nothing is left to train on.
        """
        with _seldom_collecting():
            for located, encoded in self.encode(examples):
                self.counts.rows += 1
                for part in self._fitted(located, encoded):
                    self._keep(rows, part)
        self._check()

    def _keep(self, rows: Rows, part: Encoded) -> None:
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
                f"nothing to {self._purpose} on: none of the {self.counts.rows} rows has a trainable token "
                f"(dropped as too long: {self.counts.dropped}, without a trainable token: {self.counts.untrained})"
            )
