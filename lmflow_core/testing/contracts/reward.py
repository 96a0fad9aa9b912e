"""The contract of rewards: a number for each answer, which depends on nothing but the answer and its prompt."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.examples import Message, Prompt
from lmflow_core.contracts.reward import AnsweredPrompt, RewardSpec
from lmflow_core.generation.second_models import Models
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract

_ODD = ("", " ", "\n\n", "\0", "[" * 20_000, "9" * 5000, "x" * 100_000, "😀‮\u2028é", "```json\n{}\n```", "-", "####")


class RewardContract(ComponentContract):
    """What a reward must do, tried on answers to a question.

    Attributes:
        fields: the row of the prompt, as the reward needs it.
        answers: what is scored, at least two that are not alike.
        better: an answer that must score more than ``worse``; where both are left empty that is not checked.
        worse: see ``better``.
    """

    kind: ClassVar[str] = "reward"
    fields: ClassVar[Mapping[str, Any]] = {"question": "What are two and three?", "answer": "It is 5.\n#### 5"}
    answers: ClassVar[Sequence[str]] = ("It is 5.\n#### 5", "5", "Six.", '{"sum": 5}', "Let me think about that.")
    better: ClassVar[str] = ""
    worse: ClassVar[str] = ""

    @pytest.fixture
    def reward(self, component: Any, catalogue: Catalogue) -> Any:
        """Return the reward, made ready."""
        component.prepare(Models(catalogue), None)
        try:
            component.check(self._prompt())
        except ValueError as error:
            if type(self).fields is not RewardContract.fields:
                raise
            pytest.skip(f"it needs other fields in a row; give fields: {error}")
        return component

    def _prompt(self, fields: Mapping[str, Any] | None = None) -> Prompt:
        messages = (Message("user", "What are two and three?"),)
        return Prompt(messages, (), copy.deepcopy(dict(self.fields if fields is None else fields)))

    def _answered(self, answers: Sequence[str]) -> list[AnsweredPrompt]:
        return [AnsweredPrompt(self._prompt(), answer) for answer in answers]

    def test_every_answer_has_a_number(self, reward: Any) -> None:
        """Each answer has a number, finite or NaN, in the order of the answers."""
        scores = _scores(reward, self._answered(self.answers))
        assert len(scores) == len(self.answers), f"{len(scores)} numbers for {len(self.answers)} answers"

    def test_no_answers_have_no_numbers(self, reward: Any) -> None:
        """Asked for nothing, it gives nothing."""
        assert _scores(reward, []) == [], "no answers have numbers"

    def test_an_answer_is_scored_by_itself(self, reward: Any) -> None:
        """The number of an answer does not depend on those beside it, or on their order."""
        together = _scores(reward, self._answered(self.answers))
        backwards = _scores(reward, self._answered(self.answers[::-1]))[::-1]
        alone = [_scores(reward, self._answered([answer]))[0] for answer in self.answers]
        assert _alike(backwards, together), f"{together}, and in the other order {backwards}"
        assert _alike(alone, together), f"{together} together, and each alone {alone}"

    def test_it_repeats(self, reward: Any, target: Any, option_values: Any, catalogue: Catalogue) -> None:
        """Asked again, and made anew, it gives the same numbers."""
        first, second = (_scores(reward, self._answered(self.answers)) for _ in range(2))
        assert _alike(first, second), f"{first}, and asked again {second}"
        other = self.made(target, option_values)
        other.prepare(Models(catalogue), None)
        anew = _scores(other, self._answered(self.answers))
        assert _alike(first, anew), f"{first}, and made anew {anew}"

    def test_any_text_can_be_scored(self, reward: Any) -> None:
        """Whatever a model may write has a number: nothing, odd characters, what never ends."""
        for answer in _ODD:
            try:
                found = _scores(reward, self._answered([answer]))
            except Exception as error:
                raise AssertionError(
                    f"score() raises {type(error).__name__} at the answer {answer[:20]!r} of {len(answer)} characters"
                ) from error
            assert len(found) == 1, f"{len(found)} numbers for the answer {answer[:20]!r}"

    def test_the_better_answer_scores_more(self, reward: Any) -> None:
        """An answer that is better scores more."""
        if not self.better and not self.worse:
            pytest.skip("which answer is better is not known: give better and worse")
        better, worse = _scores(reward, self._answered([self.better, self.worse]))
        assert better > worse, f"{self.better!r} scores {better}, and {self.worse!r} {worse}"

    def test_no_answer_is_worth_more_than_the_most(self, reward: Any, spec: RewardSpec) -> None:
        """No answer is worth more than the ``maximum`` of the spec."""
        if spec.maximum is None:
            pytest.skip("its spec tells no maximum")
        said = [*self.answers, *(text for text in (self.better, self.worse) if text), *_ODD]
        scores = _scores(reward, self._answered(said))
        best = max((score for score in scores if not math.isnan(score)), default=-math.inf)
        assert best <= spec.maximum, f"an answer is worth {best}, and the spec says {spec.maximum} at most"

    def test_a_row_that_lacks_something_is_told(self, reward: Any) -> None:
        """A row without a field is refused by check(), which names the field, or can be scored."""
        for lacking in ([*self.fields], *([name] for name in self.fields)):
            rest = {name: value for name, value in self.fields.items() if name not in lacking}
            prompt = self._prompt(rest)
            refusal = _refusal(reward, prompt)
            if refusal is None:
                _scores(reward, [AnsweredPrompt(prompt, answer) for answer in self.answers])
                continue
            named = [name for name in self.fields if name in refusal]
            assert named, f"a row without {', '.join(lacking)} is refused by {refusal!r}, which names no field"

    def test_the_prompt_is_left(self, reward: Any) -> None:
        """Prompts and their fields are what they were."""
        asked = self._answered(self.answers)
        before = copy.deepcopy(asked)
        reward.check(asked[0].prompt)
        _scores(reward, asked)
        assert asked == before, "check() or score() changes the prompt that it is given"

    def test_lmflow_data_score_tells_its_mean(
        self, reward: Any, spec: RewardSpec, values: Mapping[str, object], catalogue: Catalogue, tmp_path: Path
    ) -> None:
        """``lmflow data score --reward`` writes the same numbers into the rows."""
        from lmflow_core.cli.main import run

        if "messages" not in catalogue.of(DatasetSpec):
            pytest.skip("no form of rows with an answer is installed: lmflow-datasets has some")
        data, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
        asked = [{"role": "user", "content": "What are two and three?"}]
        said = [answer for answer in self.answers if answer.strip()]
        rows = [{**self.fields, "messages": [*asked, {"role": "assistant", "content": answer}]} for answer in said]
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        flags = ["--dataset", str(data), "--dataset-format", "messages", "--output", str(output)]
        flags += [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        assert run(["data", "score", "--reward", spec.name, *flags]) == 0, "lmflow data score fails"
        written = [json.loads(line)["score"] for line in output.read_text(encoding="utf-8").splitlines()]
        own = [None if math.isnan(score) else score for score in _scores(reward, self._answered(said))]
        assert written == pytest.approx(own), f"lmflow data score writes {written}, and score() gives {own}"


def _refusal(reward: Any, prompt: Prompt) -> str | None:
    """Return why a reward refuses a prompt, or None when it takes it."""
    try:
        reward.check(prompt)
    except ValueError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"check() raises {type(error).__name__}, where a ValueError is due") from error
    return None


def _scores(reward: Any, answers: Sequence[AnsweredPrompt]) -> list[float]:
    scores = reward.score(answers)
    assert isinstance(scores, Sequence), f"score() gives a {type(scores).__name__}, no list of numbers"
    for score in scores:
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        assert is_number, f"score() gives {score!r}, a {type(score).__name__}, for an answer"
        assert not math.isinf(score), f"score() gives {score}; what cannot be scored is NaN"
    return [float(score) for score in scores]


def _alike(first: Sequence[float], second: Sequence[float]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(first, second, strict=True)
    )
