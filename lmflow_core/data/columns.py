"""Encoded examples end to end, as columns of integers; what few examples have stands beside them as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence, Media
from lmflow_core.data.asked import as_plain, from_plain

# The codes of the integers, 32 and 64 bits wide, and of bytes.
CODES: Mapping[str, Literal["i", "q", "B"]] = {
    "input_ids": "i",
    "labels": "i",
    "sequence_ends": "q",  # in tokens; it begins with 0, as the next does
    "example_ends": "q",  # in sequences
    "extras": "B",  # the JSON of numbers and media, of the examples that have any
    "extra_ends": "q",  # in bytes, of each of them
    "extra_owners": "q",  # the position of the example each belongs to, in rising order
}


class Columns:
    """Columns that examples are appended to, in memory.

    What was flushed elsewhere is taken out with :meth:`clear`; the numbers of examples, sequences, tokens and bytes go
    on from there.
    """

    def __init__(self) -> None:
        """Begin with no example."""
        self.values: dict[str, array[int]] = {name: array(code) for name, code in CODES.items()}
        # Every example passes through here: a name is looked up once.
        self._input_ids, self._labels = self.values["input_ids"], self.values["labels"]
        self._sequence_ends, self._example_ends = self.values["sequence_ends"], self.values["example_ends"]
        self._sequence_ends.append(0)
        self._example_ends.append(0)
        self.examples = self.sequences = self.tokens = self.extra_bytes = 0

    def append(self, example: EncodedExample) -> None:
        """Add one example."""
        has_extra = bool(example.numbers) or example.prompt is not None
        for sequence in example.sequences:
            self._input_ids.extend(sequence.input_ids)
            self._labels.extend(sequence.labels)
            self.tokens += len(sequence.input_ids)
            self._sequence_ends.append(self.tokens)
            if sequence.media:
                has_extra = True
        self.sequences += len(example.sequences)
        self._example_ends.append(self.sequences)
        if has_extra:
            self._append_extra(written_extra(example))
        self.examples += 1

    def _append_extra(self, extra: bytes) -> None:
        self.extra_bytes += len(extra)
        self.values["extras"].frombytes(extra)
        self.values["extra_ends"].append(self.extra_bytes)
        self.values["extra_owners"].append(self.examples)

    def clear(self) -> None:
        """Forget the values that were written elsewhere."""
        for values in self.values.values():
            del values[:]


def written_extra(example: EncodedExample) -> bytes:
    """Return the numbers of an example, the media of its sequences and its prompt, as JSON."""
    media = [[dataclasses.astuple(media) for media in sequence.media] for sequence in example.sequences]
    prompt = None if example.prompt is None else as_plain(example.prompt)
    return json.dumps([dict(example.numbers), media, prompt], separators=(",", ":"), default=str).encode()


def read_extra(extra: bytes, sequences: Sequence[EncodedSequence]) -> EncodedExample:
    """Return an example of these sequences, with the numbers, media and prompt that :func:`written_extra` wrote."""
    numbers, media, prompt = json.loads(extra)
    whole = (
        dataclasses.replace(sequence, media=tuple(Media(*values) for values in listed))
        for sequence, listed in zip(sequences, media, strict=True)
    )
    named = {name: tuple(values) for name, values in numbers.items()}
    return EncodedExample(tuple(whole), named, None if prompt is None else from_plain(prompt))


class Digest:
    """A digest of columns that does not depend on how they come in pieces."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parts = {name: hashlib.sha256() for name in CODES}

    def update(self, values: Mapping[str, Any]) -> None:
        """Add what comes next in each column: arrays, or views of mapped files."""
        for name, part in self._parts.items():
            part.update(values[name].tobytes())

    def text(self) -> str:
        """Return the digest of everything so far."""
        return hashlib.sha256(b"".join(part.digest() for part in self._parts.values())).hexdigest()[:16]
