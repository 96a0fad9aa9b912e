"""What the answers of a model come to: what they are worth, how long they are, and how much they differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmflow_core.contracts.estimates import Estimate, clustered_mean, clustered_share
from lmflow_core.contracts.examples import as_turns
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.reward import AnsweredPrompt


@dataclass
class ScoredAnswer:
    """An answer to a prompt.

    Attributes:
        index: which of the prompts it answers.
        number: which of the answers to that prompt it is.
        asked: the prompt with the text of the answer.
        prompt_ids: the tokens of the prompt.
        written: the answer as it was sampled.
        rewards: the number of each reward, unweighted.
        reward: their weighted sum; NaN where one of them is.
        logprobs: the answer's log-probability by the model and by the reference, in nats; None without a reference.
    """

    index: int
    number: int
    asked: AnsweredPrompt
    prompt_ids: Sequence[int]
    written: GeneratedAnswer
    rewards: dict[str, float] = field(default_factory=dict)
    reward: float = math.nan
    logprobs: tuple[float, float] | None = None

    def row(self) -> dict[str, Any]:
        """Return it as a row of a file of samples; a number that is none is null."""
        told: dict[str, Any] = {
            "index": self.index,
            "sample": self.number,
            "messages": as_turns(self.asked.prompt.messages),
            "answer": self.asked.answer,
            "tokens": len(self.written.ids),
            "finish_reason": self.written.finish_reason,
            "score": _known(self.reward),
            "rewards": {name: _known(reward) for name, reward in self.rewards.items()},
        }
        if self.logprobs is not None:
            told["logprob"], told["reference_logprob"] = self.logprobs
        return told


_Value = Callable[[ScoredAnswer], float]
_Count = Callable[[ScoredAnswer], int]
_Estimator = Callable[[Sequence[float], Sequence[int]], Estimate | None]


@dataclass(frozen=True)
class AnswerReport:
    """What was measured. Intervals are of 95 % and take the answers to one prompt for one cluster.

    Those of means are normal ones, those of shares Wilson's.

    Attributes:
        prompts: how many were answered.
        too_long: how many were not, as they leave no room in the context.
        answers: how many there are.
        unscored: how many of these a reward gives no number for; means of rewards leave them out.
        reward: the weighted sum.
        rewards: each reward by its name, unweighted.
        at_least: what an answer must be worth to count in ``share_at_least``; None where nothing says it.
        tokens: of an answer, that which ended it included.
        cut_off: the share of answers that ended where no token more was allowed.
        distinct_answers: the share of the answers to a prompt that are not alike, where there are several.
        distinct_1: how many different words there are, by how many words (Li et al., arXiv:1510.03055).
        distinct_2: the same of pairs of words.
        kl: log p(answer) of the model less that of the reference, in nats for each answer.
        kl_per_token: the same for each token.
        kl_is_unbiased: whether the answers were sampled by the model's own distribution, so that ``kl`` estimates the
            divergence.
    """

    prompts: int
    too_long: int
    answers: int
    unscored: int
    reward: Estimate | None
    rewards: dict[str, Estimate | None]
    at_least: float | None
    share_at_least: Estimate | None
    tokens: Estimate | None
    cut_off: Estimate | None
    distinct_answers: Estimate | None
    distinct_1: float | None
    distinct_2: float | None
    kl: Estimate | None = None
    kl_per_token: Estimate | None = None
    kl_is_unbiased: bool | None = None


def figures(
    answers: Sequence[ScoredAnswer], *, too_long: int, at_least: float | None, unbiased: bool | None
) -> AnswerReport:
    """Return what answers come to, those of a prompt together.

    Args:
        answers: to the same number of samples of each prompt, at least one.
        too_long: how many prompts were left out.
        at_least: what counts as a good answer, where something says it.
        unbiased: whether they are samples of the model's own distribution; None without a reference.
    """
    prompts = [[*group] for _, group in itertools.groupby(answers, lambda answer: answer.index)]

    def mean(value: _Value, estimate: _Estimator = clustered_mean, per: _Count = _one) -> Estimate | None:
        known = [[one for one in group if not math.isnan(value(one))] for group in prompts]
        return estimate([math.fsum(map(value, each)) for each in known], [sum(map(per, each)) for each in known])

    several = len(answers) > len(prompts)
    return AnswerReport(
        prompts=len(prompts),
        too_long=too_long,
        answers=len(answers),
        unscored=sum(math.isnan(answer.reward) for answer in answers),
        reward=mean(lambda answer: answer.reward),
        rewards={name: mean(_reward_by(name)) for name in answers[0].rewards},
        at_least=at_least,
        share_at_least=None if at_least is None else mean(_reaching(at_least), clustered_share),
        tokens=mean(lambda answer: len(answer.written.ids)),
        cut_off=mean(lambda answer: answer.written.finish_reason == "length", clustered_share),
        distinct_answers=_distinct_answers(prompts) if several else None,
        distinct_1=distinct([answer.asked.answer for answer in answers], 1),
        distinct_2=distinct([answer.asked.answer for answer in answers], 2),
        kl=None if unbiased is None else mean(_log_ratio),
        kl_per_token=None if unbiased is None else mean(_log_ratio, per=lambda answer: len(answer.written.ids)),
        kl_is_unbiased=unbiased,
    )


def distinct(texts: Iterable[str], words: int) -> float | None:
    """Return how many different sequences of so many words there are, by how many there are; None for none."""
    listed = (text.split() for text in texts)
    found = [run for each in listed for run in zip(*(each[at:] for at in range(words)), strict=False)]
    return len(set(found)) / len(found) if found else None


def _distinct_answers(prompts: Sequence[Sequence[ScoredAnswer]]) -> Estimate | None:
    differing = [len({answer.asked.answer for answer in group}) for group in prompts]
    return clustered_mean(differing, [len(group) for group in prompts])


def _reward_by(name: str) -> _Value:
    return lambda answer: answer.rewards[name]


def _one(answer: ScoredAnswer) -> int:
    return 1


def _log_ratio(answer: ScoredAnswer) -> float:
    assert answer.logprobs is not None, "it is measured beside a reference"
    own, reference = answer.logprobs
    return own - reference


def _reaching(least: float) -> _Value:
    return lambda answer: math.nan if math.isnan(answer.reward) else float(answer.reward >= least)


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number
