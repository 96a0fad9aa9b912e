"""Means and shares of what was sampled, with how far they may be from the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # of a normal distribution, 95 % are within so many deviations


@dataclass(frozen=True)
class Estimate:
    """A mean, and the ends of its interval of 95 %; these are None where nothing tells them."""

    mean: float
    low: float | None
    high: float | None


def clustered_mean(sums: Sequence[float], counts: Sequence[int]) -> Estimate | None:
    """Return the mean of samples in clusters: clusters are independent, and what is within one need not be.

    The interval is a normal one, by the linearised variance of a ratio of totals (Cochran, Sampling Techniques, 3rd
    ed., chapter 6); with one sample in each cluster it is the usual one of a mean.

    Args:
        sums: of each cluster.
        counts: how many samples of each these are the sums of; where there are none, the cluster counts for nothing.
    """
    clusters, samples, mean, squares = _totals(sums, counts)
    if not clusters:
        return None
    if clusters == 1:
        return Estimate(mean, None, None)
    reach = _Z * math.sqrt(squares * clusters / (clusters - 1)) / samples
    return Estimate(mean, mean - reach, mean + reach)


def clustered_share(hits: Sequence[float], counts: Sequence[int]) -> Estimate | None:
    """Return a share of samples in clusters, with Wilson's interval for as many independent ones as tell as much.

    With one sample in each cluster these are the samples; where all or none are hits, the clusters.

    Args:
        hits: how many of each cluster count.
        counts: how many samples each has; where there are none, the cluster counts for nothing.
    """
    clusters, samples, share, squares = _totals(hits, counts)
    if not clusters:
        return None
    independent = share * (1 - share) * samples**2 / squares if squares > 0 else clusters
    return Estimate(share, *wilson(share * independent, independent))


def wilson(hits: float, count: float) -> tuple[float, float]:
    """Return the interval of Wilson (1927) that holds a share with 95 % confidence.

    Args:
        hits: how often it came out.
        count: of how often, above 0.
    """
    share, spread = hits / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    reach = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _totals(sums: Sequence[float], counts: Sequence[int]) -> tuple[int, int, float, float]:
    """Return how many clusters and samples there are, their mean, and the squared residuals of the clusters."""
    known = [(total, count) for total, count in zip(sums, counts, strict=True) if count]
    samples = sum(count for _, count in known)
    mean = math.fsum(total for total, _ in known) / samples if samples else math.nan
    return len(known), samples, mean, math.fsum((total - mean * count) ** 2 for total, count in known)
