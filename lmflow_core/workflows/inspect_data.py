"""Counting data before it is trained on: how long things are, and how much of them is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lmflow_core.contracts.settings import DataSettings, ModelSettings
from lmflow_core.contracts.tokens import EncodedExample
from lmflow_core.data.counts import trained_tokens
from lmflow_core.data.lengths import longest_sequence
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.encoded_data import encoded_examples

_STEPS = 20


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
