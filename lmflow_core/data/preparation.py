"""Examples to encoded ones that fit the model: lengths and counts of what will be trained."""

from __future__ import annotations

import gc
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from lmflow_core.contracts.examples import Prompt
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.counts import Counts, trained_tokens
from lmflow_core.data.encoding import Encoder, SplitExample
from lmflow_core.data.examples import Located
from lmflow_core.data.lengths import longest_sequence, split, truncated
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError
from lmflow_core.templates.control_tokens import ControlTextError

_BATCH, _AHEAD = 1024, 2
_OBJECTS = 500_000
# A batch that the tokenizer works on.
_Pending = tuple[list[Located], Future[list[EncodedExample]]]


def _finished(ahead: deque[_Pending]) -> Iterator[tuple[Located, EncodedExample]]:
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
    """Where encoded examples go."""

    def append(self, example: EncodedExample) -> None:
        """Add one example."""


class Preparer:
    """Encodes located examples and applies the length policy."""

    def __init__(
        self,
        encoder: Encoder,
        max_length: int | None,
        policy: str,
        purpose: str = "train",
        *,
        context: int | None = None,
    ) -> None:
        """Prepare.

        Args:
            encoder: of all rows.
            max_length: longest sequence in tokens; None is no limit.
            policy: what becomes of longer ones.
            purpose: what the rows are for, in the error when none is left.
            context: that of the model, where prompts must leave room for the first token of an answer.
        """
        self._purpose = purpose
        room = [most for most in (max_length, None if context is None else context - 1) if most is not None]
        self._max_prompt = min(room, default=None)
        self._encoder = encoder
        self._max_length = max_length
        self._policy = policy
        self.counts = Counts()
        self._first_too_long: tuple[Located, int] | None = None

    def encode(self, examples: Iterable[Located]) -> Iterator[tuple[Located, EncodedExample]]:
        """Yield each example with its encoding, before any length policy.

        While the tokenizer works on a batch, which takes no Python, the next one is read and rendered, and what it
        gave for the last is put together.

        Raises:
            DataError: an example cannot be encoded.
        """
        source = iter(examples)
        ahead: deque[_Pending] = deque()
        with ThreadPoolExecutor(_AHEAD) as pool:
            while batch := list(itertools.islice(source, _BATCH)):
                waiting = [self._split(located) for located in batch]
                ahead.append((batch, pool.submit(self._encode_batch, batch, waiting)))
                if len(ahead) > _AHEAD:
                    yield from _finished(ahead)
            while ahead:
                yield from _finished(ahead)

    def _split(self, located: Located) -> SplitExample:
        try:
            return self._encoder.split(located.example)
        except ValueError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error

    def _encode_batch(self, batch: list[Located], waiting: list[SplitExample]) -> list[EncodedExample]:
        try:
            return self._encoder.encode_split(waiting)
        except ControlTextError:
            return [self._encode_one(located, example) for located, example in zip(batch, waiting, strict=True)]

    def _encode_one(self, located: Located, example: SplitExample) -> EncodedExample:
        try:
            return self._encoder.encode_split([example])[0]
        except ControlTextError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error

    def prepare(self, examples: Iterable[Located]) -> EncodedRows:
        """Encode examples and return those that fit, in memory.

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
                is_prompt = isinstance(located.example, Prompt)
                for example in self._fitted(located, encoded, is_prompt):
                    self._keep(rows, example, is_prompt)
        self._check()

    def _keep(self, rows: Rows, example: EncodedExample, is_prompt: bool) -> None:
        counts = self.counts
        trained = [trained_tokens(sequence) for sequence in example.sequences]
        if not is_prompt and not all(trained):
            counts.untrained += 1
            return
        rows.append(example)
        counts.examples += 1
        counts.sequences += len(trained)
        counts.tokens += sum([len(sequence.input_ids) for sequence in example.sequences])
        counts.trained_tokens += sum(trained)

    def _fitted(self, located: Located, example: EncodedExample, is_prompt: bool) -> list[EncodedExample]:
        length = longest_sequence(example)
        self.counts.longest = max(self.counts.longest, length)
        limit = self._max_prompt if is_prompt else self._max_length
        if limit is None or length <= limit:
            return [example]
        self.counts.too_long += 1
        self._first_too_long = self._first_too_long or (located, limit)
        return self._shortened(example, limit, is_prompt)

    def _shortened(self, example: EncodedExample, limit: int, is_prompt: bool) -> list[EncodedExample]:
        # A prompt that is cut asks for something else: without its end, not even for an answer.
        if self._policy == "truncate" and not is_prompt:
            self.counts.truncated += 1
            return [truncated(example, limit)]
        if self._policy == "split" and not is_prompt and (pieces := split(example, limit)):
            self.counts.split += 1
            return pieces
        self.counts.dropped += 1
        return []

    def _check(self) -> None:
        if self._policy == "error" and self._first_too_long is not None:
            first, limit = self._first_too_long
            raise DataError(
                f"{self.counts.too_long} of {self.counts.rows} rows are longer than {limit} tokens "
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
