"""The benchmark ``pairwise-accuracy``: how often a model finds the better of two answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from lmflow_core.api import BenchmarkReport, EncodedDataset, EncodedSequence, LanguageModel, wilson
from lmflow_reward.examples import different_pairs
from lmflow_transformers.api import CausalModel


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
