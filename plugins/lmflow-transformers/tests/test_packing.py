from __future__ import annotations

import random

import pytest

from lmflow_core.api import RequestError
from lmflow_transformers.packing import best_fit


def test_packs_hold_every_example_once_and_are_full() -> None:
    generator = random.Random(0)
    lengths = [min(2048, int(generator.lognormvariate(5.2, 0.8)) + 4) for _ in range(10_000)]
    packs = best_fit(lengths, 4096, seed=1)
    assert sorted(position for pack in packs for position in pack) == list(range(10_000))
    sizes = [sum(lengths[position] for position in pack) for pack in packs]
    assert max(sizes) <= 4096
    assert sum(sizes) / (len(packs) * 4096) >= 0.99
    assert best_fit(lengths, 4096, seed=1) == packs
    assert best_fit(lengths, 4096, seed=2) != packs


def test_an_example_goes_where_the_least_room_holds_it() -> None:
    packs = best_fit([6, 5, 4, 3, 2], 10, seed=0)
    assert sorted(sorted(pack) for pack in packs) == [[0, 2], [1, 3, 4]]


def test_an_example_longer_than_a_pack_is_refused() -> None:
    with pytest.raises(RequestError, match="--pack-length 10: an example has 11 tokens"):
        best_fit([3, 11], 10, seed=0)
