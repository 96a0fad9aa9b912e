"""A paired test: whether two runs that were asked the same differ by more than chance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import compress

_FLIPS = 9999
_SEED = 0
# Sums of the same numbers in another order differ by rounding.
_ROUNDING = 1e-9


def sign_flip_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of Fisher's sign-flip test of paired differences.

    It is the share of all ways to swap the two runs, question by question, that part them at least as far. Where the
    differences that are not 0 have one size, as those of right and wrong do, it is computed exactly: McNemar's exact
    test. Else it is estimated from 9,999 ways that a fixed seed draws, the one that happened counted among them
    (Phipson and Smyth, arXiv:1603.05766).

    Args:
        differences: of one question each, or of several that belong together.
    """
    moved = [abs(each) for each in differences if each]
    if not moved:
        return 1.0
    if max(moved) - min(moved) <= _ROUNDING * max(moved):
        return _binomial(sum(each > 0 for each in differences), len(moved))
    total = math.fsum(differences)
    reached = abs(total) - _ROUNDING * math.fsum(moved)
    source, count = random.Random(_SEED), len(differences)
    hits = 0
    for _ in range(_FLIPS):
        kept = map(int, f"{source.getrandbits(count):0{count}b}")
        hits += abs(2 * sum(compress(differences, kept)) - total) >= reached
    return (hits + 1) / (_FLIPS + 1)


def _binomial(heads: int, tosses: int) -> float:
    """Return how likely a fair coin falls at least as unevenly."""
    fewer = min(heads, tosses - heads)
    ways = sum(math.comb(tosses, count) for count in range(fewer + 1))
    return min(1.0, float(Fraction(ways, 2 ** (tosses - 1))))
