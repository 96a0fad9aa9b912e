"""Packs of one size: which examples lie end to end together."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import torch

from lmflow_core.api import RequestError

_WINDOW = 4096


def best_fit(lengths: Sequence[int], capacity: int, seed: int, window: int = _WINDOW) -> list[list[int]]:
    """Sort examples into packs of at most ``capacity`` tokens, as full as can be.

    Examples are shuffled, then taken a window at a time: the longest first, each into the open pack with the least room
    that still holds it (best-fit decreasing). Packs that are not full stay open for the next window.

    Args:
        lengths: tokens of each example.
        capacity: tokens a pack holds.
        seed: of the shuffling.
        window: examples looked at together.

    Returns:
        For each pack the positions of its examples; every example is in one pack.

    Raises:
        RequestError: an example is longer than a pack.
    """
    if lengths and max(lengths) > capacity:
        raise RequestError(
            f"--pack-length {capacity}: an example has {max(lengths)} tokens; raise it, or lower --max-length"
        )
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, number of the pack), in order
    for start in range(0, len(order), window):
        for position in sorted(order[start : start + window], key=lambda p: (-lengths[p], p)):
            _put(position, lengths[position], capacity, packs, room)
    return packs


def _put(position: int, length: int, capacity: int, packs: list[list[int]], room: list[tuple[int, int]]) -> None:
    place = bisect_left(room, (length, -1))
    if place == len(room):
        packs.append([])
        left, number = capacity, len(packs) - 1
    else:
        left, number = room.pop(place)
    packs[number].append(position)
    if left > length:
        insort(room, (left - length, number))
