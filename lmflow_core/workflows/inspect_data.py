"""Looking at data before it is trained on: bad rows, and how long things are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.counts import trained_tokens
from lmflow_core.data.examples import ExampleReader
from lmflow_core.data.lengths import longest_sequence
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.encoded_data import encoded_examples

_STEPS = 20


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on; ``row`` is None when the whole file cannot."""

    file: str
    row: int | None
    problem: str


@dataclass
class CheckReport:
    """Every bad row, the counts, and the form chosen for each file with its reason."""

    examples: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    bad_rows: list[BadRow] = field(default_factory=list)


def check_data(paths: Sequence[Path], dataset_format: str | None, catalogue: Catalogue) -> CheckReport:
    """Read everything, going on past bad rows.

    Raises:
        DataError: a path does not exist or holds no data.
    """
    report = CheckReport()

    def remember(error: DataError) -> None:
        report.bad_rows.append(BadRow(str(error.file), error.row, error.problem))

    reader = ExampleReader(catalogue, dataset_format, on_error=remember)
    for located in reader.read(paths):
        report.examples += 1
        report.kinds[located.example.kind] = report.kinds.get(located.example.kind, 0) + 1
    report.files = {str(f): {"format": c.name, "reason": c.reason} for f, c in reader.formats.items()}
    return report


def data_stats(model: ModelSettings, data: DataSettings, catalogue: Catalogue) -> dict[str, Any]:
    """Return counts and lengths of all rows; the length of an example is that of its longest sequence, in tokens.

    Raises:
        LmflowError: the data or the model's tokenizer cannot be used.
    """
    opened_model, encoded = encoded_examples(model, data, catalogue, data.max_train_samples)
    lengths: list[int] = []
    sequences = tokens = trained = duplicates = 0
    seen: set[int] = set()
    for _, example in encoded:
        lengths.append(longest_sequence(example))
        sequences += len(example.sequences)
        tokens += example.tokens
        trained += sum(map(trained_tokens, example.sequences))
        key = _content_key(example)
        duplicates += key in seen
        seen.add(key)
    if not lengths:
        raise DataError("the data holds no rows")
    limit = data.max_length or opened_model.context_length
    return {
        "examples": len(lengths),
        "sequences": sequences,
        "tokens": tokens,
        "trained_tokens": trained,
        "trained_share": round(trained / max(tokens, 1), 4),
        "duplicates": duplicates,
        "max_length": limit,
        "too_long": sum(length > limit for length in lengths) if limit else 0,
        "length": _quantiles(sorted(lengths)),
        "histogram": _histogram(lengths),
    }


def _content_key(example: EncodedExample) -> int:
    """Return a number that is the same for examples of the same tokens and images."""
    return hash(tuple((tuple(s.input_ids), tuple(m.digest for m in s.media)) for s in example.sequences))


def _histogram(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many examples have up to so many tokens, in twenty steps of equal width."""
    step = max(1, -(-max(lengths) // _STEPS))
    counts = Counter((length - 1) // step if length else 0 for length in lengths)
    return [((number + 1) * step, counts[number]) for number in range(max(counts) + 1)]


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    last = len(lengths) - 1
    shares = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: lengths[round(share * last)] for name, share in shares.items()}
