"""Which answers of a round are learned (Dong et al., arXiv:2304.06767)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from lmflow_raft.options import RaftOptions
from lmflow_raft.samples import Sample


def selected(samples: Sequence[Sample], options: RaftOptions) -> list[Sample]:
    """Return the samples of a round, those marked that are learned.

    ``local`` takes the best answer to each prompt, the first where several are; a prompt whose answers are all worth
    the same teaches nothing and is passed over. ``top`` takes the best share of all answers that have a reward.
    """
    chosen = set(_best_of_each(samples) if options.raft_selection == "local" else _best_of_all(samples, options))
    least = -math.inf if options.raft_threshold is None else options.raft_threshold
    return [
        dataclasses.replace(sample, learned=at in chosen and sample.reward >= least)
        for at, sample in enumerate(samples)
    ]


def _best_of_each(samples: Sequence[Sample]) -> Iterator[int]:
    for _, group in itertools.groupby(range(len(samples)), lambda at: samples[at].prompt):
        scored = [at for at in group if samples[at].scored]
        if len({samples[at].reward for at in scored}) > 1:
            yield max(scored, key=lambda at: samples[at].reward)


def _best_of_all(samples: Sequence[Sample], options: RaftOptions) -> list[int]:
    scored = [at for at, sample in enumerate(samples) if sample.scored]
    ranked = sorted(scored, key=lambda at: -samples[at].reward)
    return ranked[: math.ceil(len(scored) * options.raft_top_share)]
