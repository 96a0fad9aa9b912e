"""Which answers of a round are learned (Dong et al., arXiv:2304.06767)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lmflow_raft.options import RaftOptions
from lmflow_transformers.api import Sample, places_by_prompt


def best(samples: Sequence[Sample], options: RaftOptions) -> list[int]:
    """Return the places of the samples of a round that are learned.

    ``local`` takes the best answer to each prompt, the first where several are; a prompt whose answers are all worth
    the same teaches nothing and is passed over. ``top`` takes the best share of all answers that have a reward.
    """
    chosen = _best_of_each(samples) if options.raft_selection == "local" else _best_of_all(samples, options)
    least = -math.inf if options.raft_threshold is None else options.raft_threshold
    return sorted(at for at in chosen if samples[at].reward >= least)


def _best_of_each(samples: Sequence[Sample]) -> Iterator[int]:
    for group in places_by_prompt(samples):
        scored = [at for at in group if samples[at].scored]
        if len({samples[at].reward for at in scored}) > 1:
            yield max(scored, key=lambda at: samples[at].reward)


def _best_of_all(samples: Sequence[Sample], options: RaftOptions) -> list[int]:
    scored = [at for at, sample in enumerate(samples) if sample.scored]
    ranked = sorted(scored, key=lambda at: -samples[at].reward)
    return ranked[: math.ceil(len(scored) * options.raft_top_share)]
