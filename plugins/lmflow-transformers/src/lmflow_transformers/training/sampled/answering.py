"""Answers to the prompts of a round: by seeds that depend on nothing but the run, the step and the prompt; scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lmflow_core.api import AnsweredPrompt, EncodedExample, GeneratedAnswer, Prompt, as_turns
from lmflow_transformers.training.job import TorchJob
from lmflow_transformers.training.sampled.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is sampled.

    Attributes:
        samples: answers to each prompt.
        max_new_tokens: longest answer.
        temperature: 0 takes the likeliest tokens.
        round_prompts: prompts of a round, over all processes; None is those of an epoch.
    """

    samples: int
    max_new_tokens: int
    temperature: float = 1.0
    round_prompts: int | None = None

    def greedy(self) -> Sampling:
        """Return the sampling of one answer to each prompt, by the likeliest tokens."""
        return replace(self, samples=1, temperature=0.0)


@dataclass(frozen=True)
class Answered:
    """What came of some prompts.

    Attributes:
        samples: the answers, numbered by prompt.
        too_long: prompts that leave no room for an answer in the context.
        generating: seconds spent writing answers, and ``scoring`` them.
    """

    samples: list[Sample]
    too_long: int = 0
    generating: float = 0.0
    scoring: float = 0.0


def answered(job: TorchJob, examples: Sequence[EncodedExample], sampling: Sampling, step: int) -> Answered:
    """Answer prompts with the weights of the moment, and score the answers.

    Args:
        job: whose model answers and whose rewards score.
        examples: prompts, encoded.
        sampling: how.
        step: of the run, on which the seeds depend.
    """
    room = job.model.context_length
    fitting = [example for example in examples if room is None or len(_ids(example)) < room]
    asked = [(number, example) for number, example in enumerate(fitting) for _ in range(sampling.samples)]
    started = time.perf_counter()
    answers = job.services.generate(
        job.model,
        [_ids(example) for _, example in asked],
        max_new_tokens=sampling.max_new_tokens,
        seeds=[seed for example in fitting for seed in _seeds(job.settings.seed, example, step, sampling.samples)],
        options={"temperature": sampling.temperature},
    )
    written = time.perf_counter()
    pairs = [AnsweredPrompt(_prompt(e), answer.text) for (_, e), answer in zip(asked, answers, strict=True)]
    rewards = job.services.score(pairs)
    samples = [
        _sample(number, example, pair, answer, reward)
        for (number, example), pair, answer, reward in zip(asked, pairs, answers, rewards, strict=True)
    ]
    too_long = len(examples) - len(fitting)
    return Answered(samples, too_long, written - started, time.perf_counter() - written)


def _sample(
    number: int, example: EncodedExample, pair: AnsweredPrompt, answer: GeneratedAnswer, reward: float
) -> Sample:
    messages = [*as_turns(pair.prompt.messages), {"role": "assistant", "content": pair.answer}]
    return Sample(number, messages, _ids(example), list(answer.ids), reward)


def _ids(example: EncodedExample) -> list[int]:
    return list(example.sequences[0].input_ids)


def _prompt(example: EncodedExample) -> Prompt:
    assert example.prompt is not None, "prompts come with what they were encoded from"
    return example.prompt


def _seeds(run: int, example: EncodedExample, step: int, count: int) -> Iterator[int]:
    for number in range(count):
        text = f"{run} {step} {number} {_ids(example)}"
        yield int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
