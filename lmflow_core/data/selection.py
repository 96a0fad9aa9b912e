"""Which rows are trained on, and which are for validation."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

from lmflow_core.contracts.examples import Example, Prompt
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.data.asked import as_prompt
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.data.structures import structure_of, structured
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue


def selected(
    data: DataSettings, catalogue: Catalogue, seed: int, accepted: tuple[str, ...], *, validation: bool = False
) -> Iterator[Located]:
    """Yield the examples to train on, or with ``validation`` those to measure on, as a stream.

    Each source has a generator of its own, so what is sampled of one does not depend on the others. A validation
    example is never trained on, however often its source counts.

    Args:
        data: sources, weights, share and limit.
        catalogue: the components there are.
        seed: of what is sampled.
        accepted: the kinds of example that can be used.
        validation: which of the two.

    Raises:
        DataError: a row cannot be used.
    """
    found = _validation(data, catalogue, seed) if validation else _trained(data, catalogue, seed)
    structure = structure_of(data)
    for located in itertools.islice(found, None if validation else data.max_train_samples):
        usable = _accepted(located, accepted)
        yield usable if structure is None else structured(usable, structure)


def _validation(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[Located]:
    for located, chance, _ in _sampled(data, catalogue, seed):
        if chance < data.eval_share:
            yield located


def _trained(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[Located]:
    for located, chance, times in _sampled(data, catalogue, seed):
        if chance >= data.eval_share:
            yield from itertools.repeat(located, times)


def _sampled(data: DataSettings, catalogue: Catalogue, seed: int) -> Iterator[tuple[Located, float, int]]:
    """Yield each example with a random chance in [0, 1), small for validation, and how often it counts."""
    weights = data.dataset_weights or (1.0,) * len(data.dataset)
    for number, (path, weight) in enumerate(zip(data.dataset, weights, strict=True)):
        generator = random.Random(f"{seed} {number}")
        whole, fraction = divmod(weight, 1)
        for located in example_reader(data, catalogue).read([path]):
            chance = generator.random()
            yield located, chance, int(whole) + (generator.random() < fraction)


def _accepted(located: Located, accepted: tuple[str, ...]) -> Located:
    """Return an example that can be used; where prompts are asked for and conversations are not, one's prompt."""
    kind = located.example.kind
    prompt = as_prompt(located) if Prompt.kind in accepted and kind not in set(accepted) - {Prompt.kind} else None
    if prompt is not None:
        return replace(located, example=prompt)
    if kind in accepted:
        return located
    raise DataError(
        f"a {kind} example, but the objective learns from {', '.join(accepted)}", file=located.file, row=located.row
    )


def example_reader(data: DataSettings, catalogue: Catalogue) -> ExampleReader:
    """Return what reads the examples of some data as its settings say."""
    return ExampleReader(catalogue, data.dataset_format, image_folders=data.image_folder)


def first_examples(data: DataSettings, catalogue: Catalogue) -> Iterator[Example]:
    """Yield the first example of each entry of ``--dataset``: what is needed to choose a template.

    Raises:
        DataError: a source cannot be used.
    """
    for path in data.dataset:
        for located in itertools.islice(example_reader(data, catalogue).read([path]), 1):
            yield located.example
