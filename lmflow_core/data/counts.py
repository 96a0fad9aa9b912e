"""What became of the rows of some data, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lmflow_core.contracts.tokens import IGNORE, EncodedSequence


@dataclass
class Counts:
    """What became of the rows.

    Attributes:
        rows: that were read.
        examples: that are kept.
        sequences: of these examples.
        tokens: of these sequences.
        trained_tokens: those with a label that something precedes.
        longest: tokens of the longest sequence before any was cut.
        too_long: rows with a sequence that is longer than allowed.
        dropped: of these, those left out.
        truncated: of these, those cut.
        split: of these, those cut into several examples.
        untrained: examples left out because a sequence has nothing to learn.
    """

    rows: int = 0
    examples: int = 0
    sequences: int = 0
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


def trained_tokens(sequence: EncodedSequence) -> int:
    """Return how many tokens of a sequence are learned; the first never is, since nothing predicts it."""
    later = sequence.labels[1:]
    return len(later) - later.count(IGNORE)
