"""What each method learns of the answers of a round, and how strongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from lmflow_raft.options import RaftOptions
from lmflow_raft.ratios import ADVANTAGE, REWARD
from lmflow_raft.selection import best
from lmflow_transformers.api import Lesson, Sample, places_by_prompt

# Keeps the advantages of answers finite that are worth almost the same.
_LEAST_DEVIATION = 1e-4

Method = Callable[[Sequence[Sample], RaftOptions], list[Lesson]]


def raft(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """RAFT (Dong et al., arXiv:2304.06767): the best answers, by their cross-entropy."""
    return [Lesson((at,), {REWARD: (samples[at].reward,)}) for at in best(samples, options)]


def raft_plus(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """RAFT++ (Xiong et al., arXiv:2504.11343): the answers that RAFT learns, each with the advantage 1."""
    return [_lesson(samples, [at], [1.0]) for at in best(samples, options)]


def reinforce_rej(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """Reinforce-Rej (Xiong et al., arXiv:2504.11343): right answers count 1 and wrong ones -1.

    Prompts whose answers are all right, or all wrong, are left out.
    """
    lessons = []
    for group in _scored(samples):
        signs = [1.0 if samples[at].reward >= options.raft_right_reward else -1.0 for at in group]
        if len(set(signs)) > 1:
            lessons.append(_lesson(samples, group, signs))
    return lessons


def grpo(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """GRPO (Shao et al., arXiv:2402.03300): rewards less their mean, over their standard deviation, by prompt.

    The deviation is that of a sample (n - 1). There is no term for the distance from a reference.
    """
    lessons = []
    for group in _scored(samples):
        rewards = [samples[at].reward for at in group]
        if len(set(rewards)) > 1:
            mean, scale = fmean(rewards), stdev(rewards) + _LEAST_DEVIATION
            lessons.append(_lesson(samples, group, [(reward - mean) / scale for reward in rewards]))
    return lessons


METHODS: Mapping[str, Method] = {"raft": raft, "raft++": raft_plus, "reinforce-rej": reinforce_rej, "grpo": grpo}


def every(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """All answers: what RAFT measures of validation prompts."""
    return [Lesson((at,), {REWARD: (sample.reward,)}) for at, sample in enumerate(samples)]


def by_reward(samples: Sequence[Sample], options: RaftOptions) -> list[Lesson]:
    """All answers with a reward, which is their advantage: what the other methods measure of validation prompts."""
    return [_lesson(samples, [at], [s.reward]) for at, s in enumerate(samples) if s.scored]


def _scored(samples: Sequence[Sample]) -> list[list[int]]:
    return [[at for at in group if samples[at].scored] for group in places_by_prompt(samples)]


def _lesson(samples: Sequence[Sample], places: Sequence[int], advantages: Sequence[float]) -> Lesson:
    rewards = tuple(samples[at].reward for at in places)
    return Lesson(tuple(places), {ADVANTAGE: tuple(advantages), REWARD: rewards})
