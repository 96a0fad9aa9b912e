"""The benchmark ``pairwise-accuracy``: how often a model finds the better of two answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from lmflow_core.api import BenchmarkReport, EncodedDataset, EncodedSequence, LanguageModel
from lmflow_reward.examples import different_pairs
from lmflow_transformers.api import CausalModel

_Z = 1.959963984540054  # of a normal distribution, 95 % are within so many deviations


class PairwiseAccuracy:
    """The share of pairs whose chosen answer is judged the better one.

    A reward model judges by its number; a model that predicts tokens by the mean log-likelihood of the answer's tokens,
    which is what a trained reward model has to beat.
    """

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def run(self, model: LanguageModel, data: EncodedDataset) -> BenchmarkReport:
        """Measure a loaded model on pairs.

        Raises:
            DataError: the examples are no pairs.
        """
        pairs = different_pairs(data)
        sequences = chain.from_iterable(pairs[position].sequences for position in range(len(pairs)))
        judged = list(_judged(model, sequences))
        margins = [chosen - rejected for chosen, rejected in zip(judged[::2], judged[1::2], strict=True)]
        return BenchmarkReport(_figures(margins))


def _judged(model: LanguageModel, sequences: Iterator[EncodedSequence]) -> Iterator[float]:
    if model.plan.task == "regression":
        assert isinstance(model, CausalModel)
        yield from model.values(sequences)
    else:
        yield from (-score.nll / score.tokens for score in model.score(sequences))


def _figures(margins: Sequence[float]) -> dict[str, float]:
    right = sum(margin > 0 for margin in margins)
    lowest, highest = wilson(right, len(margins))
    return {
        "accuracy": right / len(margins),
        "accuracy_at_least": lowest,
        "accuracy_at_most": highest,
        "margin": math.fsum(margins) / len(margins),
        "pairs": len(margins),
    }


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the interval of Wilson (1927) that holds a share with 95 % confidence.

    Args:
        right: how often it was right.
        count: of how often, at least once.
    """
    share, spread = right / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    reach = _Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)
