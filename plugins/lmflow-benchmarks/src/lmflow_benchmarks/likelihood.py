"""How likely a model finds answers: for each example, token and byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmflow_benchmarks.answers import answer_bytes
from lmflow_benchmarks.figures import Figure, mean, ratio
from lmflow_core.api import EncodedExample, EncodedSequence, LanguageModel, MeasuredSet

NLL, PER_TOKEN, PER_BYTE, BITS, PERPLEXITY = "nll", "nll per token", "nll per byte", "bits per byte", "perplexity"
# What is told for each metric.
TOLD = {"nll": (NLL, PER_TOKEN, PER_BYTE, BITS), "ppl": (PERPLEXITY, PER_TOKEN, BITS)}


@dataclass
class Likelihood:
    """Negative log-likelihood of the labelled tokens of an example, in nats; how many they are, and their bytes."""

    nll: float
    tokens: int
    bytes: int

    def told(self) -> dict[str, int]:
        """Return what is kept of the example beside its score."""
        return {"tokens": self.tokens, "bytes": self.bytes}


def likelihoods(model: LanguageModel, examples: Sequence[EncodedExample], measured: MeasuredSet) -> list[Likelihood]:
    """Return the likelihood of each example, whose windows are scored and put together again."""
    owners: list[int] = []
    found = [Likelihood(0.0, 0, answer_bytes(example.sequences[0], model.tokenizer)) for example in examples]
    for number, score in enumerate(model.score(_windows(examples, measured, owners))):
        owner = found[owners[number]]
        owner.nll += score.nll
        owner.tokens += score.tokens
    return found


def _windows(examples: Sequence[EncodedExample], measured: MeasuredSet, owners: list[int]) -> Iterator[EncodedSequence]:
    """Yield the windows of all examples, and note whose each is before it is asked for."""
    for number, example in enumerate(examples):
        for window in measured.windows(example.sequences[0]):
            owners.append(number)
            yield window


def figures_of(found: Sequence[Likelihood]) -> dict[str, Figure]:
    """Return all figures of a data set by name."""
    nll = [each.nll for each in found]
    per_token = ratio(nll, [each.tokens for each in found])
    figures = {NLL: mean(nll), PER_TOKEN: per_token}
    if sum(each.bytes for each in found):
        figures[PER_BYTE] = ratio(nll, [each.bytes for each in found])
        figures[BITS] = figures[PER_BYTE].times(1 / math.log(2))
    return figures
