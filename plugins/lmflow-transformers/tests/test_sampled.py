"""Rounds of samples: kept in files, numbered by prompt, taught, measured, and what cannot be learned from counted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmflow_core.api import (
    IGNORE,
    AnsweredPrompt,
    EncodedExample,
    EncodedSequence,
    GeneratedAnswer,
    Message,
    Prompt,
    RequestError,
    TrainingSettings,
    World,
)
from lmflow_transformers.api import Lesson, Sample, Sampling, Teaching, for_rounds, places_by_prompt
from lmflow_transformers.training.sampled.answering import answered
from lmflow_transformers.training.sampled.figures import figures_of, told
from lmflow_transformers.training.sampled.samples import SampleFolder


def _sample(prompt: int, reward: float, answer: tuple[int, ...] = (2,)) -> Sample:
    return Sample(prompt, [], [1], answer, reward)


def test_samples_come_back_from_their_file(tmp_path: Path) -> None:
    folder = SampleFolder(tmp_path / "samples")
    assert folder.read(3) is None
    assert folder.steps() == []
    samples = [
        Sample(0, [], [1], [2], 0.5, numbers={"old": [-0.1, 1 / 3]}),
        Sample(1, [{"role": "user", "content": "é"}], [1], [2], -2.0, learned=True),
    ]
    folder.write(12, [])
    folder.write(3, samples)
    assert folder.read(3) == samples
    assert folder.steps() == [3, 12]
    folder.write(3, [Sample(0, [], [1], [2], math.nan)])
    (found,) = folder.read(3) or ()
    assert math.isnan(found.reward)
    folder.note(3, {"a": 1.0})
    folder.note(3, {"b": 2.0})
    assert folder.noted(3) == {"a": 1.0, "b": 2.0}
    assert folder.noted(12) == {}


def test_what_is_learned_is_marked_and_measured_by_prompt() -> None:
    samples = [_sample(0, 1.0, (2, 3)), _sample(0, 0.0, (4,)), _sample(0, 0.5, (5, 6)), _sample(1, 1.0, (7,))]
    asked: list[tuple[EncodedExample, ...]] = []

    def by_token(examples: list[EncodedExample], step: int | None) -> list[tuple[float, ...]]:
        asked.append(tuple(examples))
        assert step == 8
        return [tuple(float(label) for s in e.sequences for label in s.labels if label != IGNORE) for e in examples]

    def by_sequence(examples: list[EncodedExample], step: int | None) -> list[tuple[float, ...]]:
        return [tuple(float(len(s.labels)) for s in e.sequences) for e in examples]

    teaching = Teaching(
        lambda given: [Lesson((2, 0), {"margin": (0.5,)}), Lesson((3,))], {"token": by_token, "length": by_sequence}
    )
    taught = teaching.taught(samples, 8)
    assert [sample.learned for sample in taught] == [True, False, True, True]
    assert [len(example.sequences) for example in asked[0]] == [2, 1]
    teaching.check(taught)
    with pytest.raises(RequestError, match="no token, as they were made with other options"):
        teaching.check([dataclasses.replace(sample, numbers={}) for sample in taught])
    thorough = dataclasses.replace(teaching, measures_all=True, measurements={"length": by_sequence})
    assert [sample.numbers for sample in thorough.taught(samples, 8)] == [{"length": [n]} for n in (3.0, 2.0, 3.0, 2.0)]
    first, second = teaching.examples(taught)
    assert [list(sequence.input_ids) for sequence in first.sequences] == [[1, 5, 6], [1, 2, 3]]
    assert [list(sequence.labels) for sequence in first.sequences] == [[IGNORE, 5, 6], [IGNORE, 2, 3]]
    assert first.numbers == {"margin": (0.5,), "token": (5.0, 6.0, 2.0, 3.0), "length": (3.0, 3.0)}
    assert second.numbers == {"token": (7.0,), "length": (2.0,)}


def test_prompts_without_room_for_an_answer_are_passed_over() -> None:
    class Services:
        def generate(self, model: object, prompts: list[list[int]], **asked: Any) -> list[GeneratedAnswer]:
            assert len(set(asked["seeds"])) == len(prompts)
            return [GeneratedAnswer((7,), "seven", "stop") for _ in prompts]

        def score(self, answers: list[AnsweredPrompt]) -> list[float]:
            return [float(len(answer.answer)) for answer in answers]

    def prompt(ids: list[int]) -> EncodedExample:
        asked = Prompt((Message("user", str(ids)),))
        return EncodedExample((EncodedSequence(ids, [IGNORE] * len(ids)),), prompt=asked)

    job: Any = SimpleNamespace(
        model=SimpleNamespace(context_length=3), services=Services(), settings=TrainingSettings()
    )
    sampling = Sampling(samples=2, max_new_tokens=1)
    found = answered(job, [prompt([1, 2, 3]), prompt([4, 5]), prompt([6])], sampling, 0)
    assert found.too_long == 1
    assert [(sample.prompt, sample.prompt_ids) for sample in found.samples] == [
        *[(0, [4, 5])] * 2,
        *[(1, [6])] * 2,
    ]
    assert {sample.reward for sample in found.samples} == {5.0}
    assert found.samples[0].messages[-1] == {"role": "assistant", "content": "seven"}
    none = answered(job, [prompt([1, 2, 3])], sampling, 0)
    assert (none.samples, none.too_long) == ([], 1)


@pytest.mark.parametrize(
    ("prompts", "of_round", "rounds", "steps"),
    # Steps take 2 prompts: 10 prompts are 5 steps, and rounds of 4 prompts then have 2, 2 and 1.
    [(10, None, 2, 10), (10, 4, 1, 2), (10, 4, 3, 5), (10, 4, 5, 9), (9, 3, 4, 7), (10, 100, 3, 15)],
)
def test_rounds_become_steps(prompts: int, of_round: int | None, rounds: int, steps: int) -> None:
    @dataclasses.dataclass(frozen=True)
    class Job:
        settings: TrainingSettings
        data: range
        world: World

    job: Any = Job(TrainingSettings(batch_size=1, gradient_accumulation_steps=2), range(prompts), World())
    sampling = Sampling(samples=2, max_new_tokens=1, round_prompts=of_round)
    assert for_rounds(job, sampling, None) is job
    assert for_rounds(job, sampling, rounds).settings.max_steps == steps


def test_figures_of_a_round() -> None:
    samples = [_sample(0, 1.0), _sample(0, 0.0), _sample(1, math.nan), _sample(1, 0.5, (9,)), _sample(2, math.inf)]
    assert places_by_prompt(samples) == [[0, 1], [2, 3], [4]]
    taught = Teaching(lambda given: [Lesson((0,))]).taught(samples, 0)
    assert figures_of(taught) == {
        "learned": 0.2,
        "distinct": (0.5 + 1.0 + 1.0) / 3,
        "sampled_reward": 0.5,
        "learned_reward": 1.0,
    }
    assert figures_of([]) == {}
    line = told([*taught, Sample(3, [{"role": "assistant", "content": " "}], [1], [2], 1.0)], 4, 2)
    assert line.startswith("round at step 4: 6 answers, learned 0.167, distinct ")
    assert line.endswith(
        "; 1 prompts whose answers are all worth the same; 2 prompts longer than the context; 1 empty answers; "
        "2 answers without a reward"
    )
