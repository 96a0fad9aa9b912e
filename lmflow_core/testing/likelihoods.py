"""What a model's own likelihoods say of the next token, and whether tokens were sampled from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.tokens import IGNORE, EncodedSequence

# With fixed seeds a sound decoder passes always or never; one of 30,000 sets of seeds is as far off as this.
_DEVIATIONS = 4.0
_LEAST_EXPECTED = 5.0


def behind(prompt: Sequence[int], answer: Sequence[int]) -> EncodedSequence:
    """Return a text of which the answer alone counts."""
    return EncodedSequence([*prompt, *answer], [*[IGNORE] * len(prompt), *answer])


def next_logprobs(model: LanguageModel, prompt: Sequence[int], vocabulary: int) -> list[float]:
    """Return the log-probability, in nats, of each token of the vocabulary behind a prompt: by scoring all of them."""
    scores = model.score(behind(prompt, [token]) for token in range(vocabulary))
    return [-score.nll for score in scores]


def is_whole(logprobs: Sequence[float]) -> bool:
    """Return whether the probabilities of tokens add up to 1, as those of a whole vocabulary do."""
    return abs(sum(map(math.exp, logprobs)) - 1) < 0.01


def sharpened(logprobs: Sequence[float], temperature: float) -> list[float]:
    """Return the log-probabilities at a temperature."""
    divided = [value / temperature for value in logprobs]
    top = max(divided)
    total = top + math.log(sum(math.exp(value - top) for value in divided))
    return [value - total for value in divided]


def misses(tokens: Sequence[int], logprobs: Sequence[float]) -> list[str]:
    """Return what tells that tokens were not sampled from a distribution, a sentence each; empty when they may be.

    Two quantities are compared: how often tokens occur, the rare ones together (chi-square, by the approximation of
    Wilson and Hilferty, 1931), and the mean of their negative log-probability, whose expectation is the entropy.
    """
    found = [_frequencies(tokens, logprobs), _surprise(tokens, logprobs)]
    return [problem for problem in found if problem]


def _frequencies(tokens: Sequence[int], logprobs: Sequence[float]) -> str:
    counts = Counter(tokens)
    bins: list[tuple[float, int]] = []
    expected, seen = 0.0, 0
    for token in sorted(range(len(logprobs)), key=lambda token: -logprobs[token]):
        expected += len(tokens) * math.exp(logprobs[token])
        seen += counts[token]
        if expected >= _LEAST_EXPECTED:
            bins.append((expected, seen))
            expected, seen = 0.0, 0
    if bins:  # what is left is too rare to stand alone
        bins[-1] = bins[-1][0] + expected, bins[-1][1] + seen
    freedom = len(bins) - 1
    assert freedom >= 1, "too few tokens, or one that is nearly certain"
    ratio = sum((seen - expected) ** 2 / expected for expected, seen in bins) / freedom
    deviation = (ratio ** (1 / 3) - 1 + 2 / (9 * freedom)) / math.sqrt(2 / (9 * freedom))
    if deviation <= _DEVIATIONS:
        return ""
    top = max(range(len(logprobs)), key=lambda token: logprobs[token])
    return (
        f"tokens occur too often or too rarely (chi-square over its degrees of freedom is {ratio:.1f}): the likeliest, "
        f"{top}, came {counts[top]} times of {len(tokens)}, where {len(tokens) * math.exp(logprobs[top]):.1f} are due"
    )


def _surprise(tokens: Sequence[int], logprobs: Sequence[float]) -> str:
    entropy = -sum(math.exp(value) * value for value in logprobs)
    variance = sum(math.exp(value) * value**2 for value in logprobs) - entropy**2
    mean = -sum(logprobs[token] for token in tokens) / len(tokens)
    if abs(mean - entropy) <= _DEVIATIONS * math.sqrt(variance / len(tokens)):
        return ""
    kind = "sharper" if mean < entropy else "flatter"
    return f"the distribution is {kind}: tokens are unlikely by {mean:.2f} nats on average, where {entropy:.2f} are due"
