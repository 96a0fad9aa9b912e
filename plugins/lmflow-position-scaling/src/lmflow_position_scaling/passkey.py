"""Passkey retrieval: a number hidden in filler text, asked for at the end (Mohtashami & Jaggi, arXiv:2305.16300).

The prompt is the one of position interpolation's paper (arXiv:2306.15595). An answer counts when each of its tokens
is the model's likeliest after the ones before it, which is what greedy decoding would write.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmflow_core.api import IGNORE, BenchmarkReport, EncodedSequence, Grid, LanguageModel, RequestError, option

INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there."
)
FILLER = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
KEY = " The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = " What is the pass key? The pass key is"


@dataclass(frozen=True, kw_only=True)
class PasskeyOptions:
    """The grid of the benchmark."""

    passkey_lengths: tuple[int, ...] = option(
        (), help="Lengths of the prompts in tokens; a quarter to the whole of the context when left out.", minimum=1
    )
    passkey_depths: int = option(5, help="Places of the key, from the start to the end of the filler.", minimum=2)
    passkey_trials: int = option(3, help="Keys tried at each place.", minimum=1)
    passkey_seed: int = option(42, help="Seed of the keys.", minimum=0)


class PasskeyPrompt:
    """Prompts of exact lengths in the tokens of one model."""

    def __init__(self, model: LanguageModel) -> None:
        encode = model.tokenizer.encode
        start, self._question, filler = encode((INTRODUCTION, QUESTION, FILLER), (False, True, True))
        bos = model.tokenizer.bos
        self._start = [*([model.tokenizer.control_tokens[bos]] if bos else []), *start]
        self._filler = filler
        self._encode = encode

    def shortest(self, digits: int) -> int:
        """Return how many tokens a prompt without any filler has, for a key of some digits."""
        hidden, answer = self._mentions("0" * digits)
        return len(self._start) + len(hidden) + len(self._question) + len(answer)

    def _mentions(self, key: str) -> tuple[list[int], list[int]]:
        hidden, answer = self._encode((KEY.format(key=key), f" {key}"), (True, True))
        return hidden, answer

    def build(self, key: str, length: int, depth: float) -> EncodedSequence:
        """Return a prompt with its answer, which alone carries labels.

        Args:
            key: the number, as text.
            length: tokens of prompt and answer together.
            depth: share of the filler that comes before the key, 0 to 1.

        Raises:
            RequestError: the length leaves no room for the parts that must be there.
        """
        hidden, answer = self._mentions(key)
        room = length - len(self._start) - len(hidden) - len(self._question) - len(answer)
        if room < 0:
            raise RequestError(f"--passkey-lengths {length}: the shortest prompt has {length - room} tokens")
        before = round(depth * room)
        # Around the key the filler may stop mid-sentence: the length is exact, which matters more here.
        filler = [self._filler[i % len(self._filler)] for i in range(room)]
        prompt = [*self._start, *filler[:before], *hidden, *filler[before:], *self._question]
        return EncodedSequence([*prompt, *answer], [*([IGNORE] * len(prompt)), *answer])


class PasskeyBenchmark:
    """Measures at which depths and lengths a model finds the key."""

    def __init__(self, options: PasskeyOptions | None = None) -> None:
        self._options = options or PasskeyOptions()

    def run(self, model: LanguageModel) -> BenchmarkReport:
        """Ask for every key of the grid.

        Raises:
            RequestError: a length is too short for the prompt, or the runtime does not tell what it would answer.
        """
        lengths = self._options.passkey_lengths or _quarters(model.context_length)
        depths = [step / (self._options.passkey_depths - 1) for step in range(self._options.passkey_depths)]
        prompts = list(self._prompts(PasskeyPrompt(model), lengths, depths))
        found = [score.correct for score in model.score(prompts)]
        if None in found:
            raise RequestError(
                f"--benchmark passkey: the runtime of {model.reference} does not tell its likeliest tokens"
            )
        hits = [int(correct == _labelled(prompt)) for correct, prompt in zip(found, prompts, strict=True)]
        return _report(hits, lengths, depths, self._options.passkey_trials)

    def _prompts(
        self, builder: PasskeyPrompt, lengths: Sequence[int], depths: Sequence[float]
    ) -> Iterator[EncodedSequence]:
        generator = random.Random(self._options.passkey_seed)
        for length in lengths:
            for depth in depths:
                for _ in range(self._options.passkey_trials):
                    yield builder.build(f"{generator.randrange(10000, 100000)}", length, depth)


def _quarters(context: int | None) -> tuple[int, ...]:
    if context is None:
        raise RequestError("--benchmark passkey: the model does not tell its context; give --passkey-lengths")
    return tuple(context * quarter // 4 for quarter in (1, 2, 3, 4))


def _labelled(prompt: EncodedSequence) -> int:
    return sum(label != IGNORE for label in prompt.labels)


def _report(hits: Sequence[int], lengths: Sequence[int], depths: Sequence[float], trials: int) -> BenchmarkReport:
    """Return the share of keys found: at each length, and for each length and depth."""
    rates = [sum(hits[at : at + trials]) / trials for at in range(0, len(hits), trials)]
    by_length = [rates[at : at + len(depths)] for at in range(0, len(rates), len(depths))]
    metrics = {"accuracy": sum(hits) / len(hits)}
    metrics |= {f"accuracy_{length}": sum(row) / len(row) for length, row in zip(lengths, by_length, strict=True)}
    grid = Grid(
        title="Passkey retrieval: share of keys found",
        column_label="length (tokens)",
        columns=tuple(map(str, lengths)),
        row_label="depth of the key",
        rows=tuple(f"{depth:.0%}" for depth in depths),
        values=tuple(zip(*by_length, strict=True)),
    )
    return BenchmarkReport(metrics, grid)
