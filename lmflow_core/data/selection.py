"""Which rows are trained on, and which are held out to measure the loss."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue


def selected(
    data: DataSettings, catalogue: Catalogue, seed: int, accepted: tuple[str, ...], *, held_out: bool = False
) -> Iterator[Located]:
    """Yield the examples to train on, or with ``held_out`` those to measure on, as a stream.

    Each source has a generator of its own, so what is drawn from one does not depend on the others. A held-out example
    is never trained on, however often its source counts.

    Args:
        data: sources, weights, share and limit.
        catalogue: the components there are.
        seed: of the draws.
        accepted: the kinds of example that can be used.
        held_out: which of the two.

    Raises:
        DataError: a row cannot be used.
    """
    found = _held_out(data, catalogue, seed) if held_out else _trained(data, catalogue, seed)
    for located in itertools.islice(found, None if held_out else data.max_train_samples):
        _check_kind(located.example, accepted, located)
        yield located


def _held_out(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[Located]:
    for located, draw, _ in _drawn(data, catalogue, seed):
        if draw < data.eval_share:
            yield located


def _trained(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[Located]:
    for located, draw, times in _drawn(data, catalogue, seed):
        if draw >= data.eval_share:
            yield from itertools.repeat(located, times)


def _drawn(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[tuple[Located, float, int]]:
    """Yield each example with a number in [0, 1) that holds it out, and how often it counts."""
    weights = data.dataset_weights or (1.0,) * len(data.dataset)
    for number, (path, weight) in enumerate(zip(data.dataset, weights, strict=True)):
        generator = random.Random(f"{seed} {number}")
        whole, fraction = divmod(weight, 1)
        for located in ExampleReader(catalogue, data.dataset_format).read([path]):
            draw = generator.random()
            yield located, draw, int(whole) + (generator.random() < fraction)


def _check_kind(example: Example, accepted: tuple[str, ...], located: Located) -> None:
    if example.kind not in accepted:
        raise DataError(
            f"a {example.kind} example, but the objective learns from {', '.join(accepted)}",
            file=located.file,
            row=located.row,
        )


def first_examples(data: DataSettings, catalogue: Catalogue) -> Iterator[Example]:
    """Yield the first example of each entry of ``--dataset``: what is needed to choose a template.

    Raises:
        DataError: a source cannot be used.
    """
    for path in data.dataset:
        for located in itertools.islice(ExampleReader(catalogue, data.dataset_format).read([path]), 1):
            yield located.example
