"""Looking at data before it is trained on: bad rows, what carries a label, and how long things are."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tokens import Encoded
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.data.preparation import Preparer, trained_tokens
from lmflow_core.data.selection import first_examples
from lmflow_core.errors import DataError
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.templates.choosing import choose_template_for

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


@dataclass(frozen=True)
class Preview:
    """One row as it will be trained on. ``pieces`` are its tokens' texts, each with whether it carries a label."""

    file: str
    row: int
    input_ids: list[int]
    labels: list[int]
    text: str
    pieces: list[tuple[str, bool]]


def preview_data(model: ModelSettings, data: DataSettings, rows: int, catalogue: Catalogue) -> Iterator[Preview]:
    """Yield the first rows, encoded.

    Raises:
        LmflowError: the data or the model's tokenizer cannot be used.
    """
    opened_model, encoded = _encoded(model, data, catalogue, rows)
    for located, row in encoded:
        yield _preview(opened_model, located, row)


def _preview(model: LanguageModel, located: Located, row: Encoded) -> Preview:
    ids, labels = list(row.input_ids), list(row.labels)
    spans = [(list(group), trained) for trained, group in itertools.groupby(range(len(ids)), lambda i: labels[i] >= 0)]
    pieces = [(model.tokenizer.decode([ids[i] for i in span]), trained) for span, trained in spans]
    return Preview(str(located.file), located.row, ids, labels, model.tokenizer.decode(ids), pieces)


def _encoded(
    model: ModelSettings, data: DataSettings, catalogue: Catalogue, rows: int | None
) -> tuple[LanguageModel, Iterator[tuple[Located, Encoded]]]:
    opened = open_model(model, catalogue, runtime=TORCH)
    _, template = choose_template_for(first_examples(data, catalogue), data.template, opened, catalogue)
    preparer = Preparer(Encoder(opened.model.tokenizer, template, data.train_on), None, data.length_policy)
    examples = itertools.islice(ExampleReader(catalogue, data.dataset_format).read(data.dataset), rows)
    return opened.model, preparer.encode(console.progress(examples, "Reading data"))


def data_stats(model: ModelSettings, data: DataSettings, catalogue: Catalogue) -> dict[str, Any]:
    """Return counts and token lengths of all rows.

    Raises:
        LmflowError: the data or the model's tokenizer cannot be used.
    """
    opened_model, encoded = _encoded(model, data, catalogue, data.max_train_samples)
    lengths: list[int] = []
    trained = duplicates = 0
    seen: set[int] = set()
    for _, row in encoded:
        lengths.append(len(row.input_ids))
        trained += trained_tokens(row)
        key = hash(tuple(row.input_ids))
        duplicates += key in seen
        seen.add(key)
    if not lengths:
        raise DataError("the data holds no rows")
    limit = data.max_length or opened_model.context_length
    return {
        "examples": len(lengths),
        "tokens": sum(lengths),
        "trained_tokens": trained,
        "trained_share": round(trained / max(sum(lengths), 1), 4),
        "duplicates": duplicates,
        "max_length": limit,
        "too_long": sum(length > limit for length in lengths) if limit else 0,
        "length": _quantiles(sorted(lengths)),
        "histogram": _histogram(lengths),
    }


def _histogram(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many examples have up to so many tokens, in twenty steps of equal width."""
    step = max(1, -(-max(lengths) // _STEPS))
    counts = Counter((length - 1) // step if length else 0 for length in lengths)
    return [((number + 1) * step, counts[number]) for number in range(max(counts) + 1)]


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    last = len(lengths) - 1
    shares = {"min": 0.0, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: lengths[round(share * last)] for name, share in shares.items()}
