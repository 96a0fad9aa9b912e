"""What of the data is trained on, and how the reference's log-probabilities are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import IGNORE, DataError, EncodedExample, EncodedSequence, TrainingSettings
from lmflow_core.testing.jobs import make_job, rows_of
from lmflow_preference import reference
from lmflow_preference.examples import answer_start, pairs_of, verdicts_of
from lmflow_preference.options import DpoOptions


def _sequence(prompt: list[int], answer: list[int]) -> EncodedSequence:
    return EncodedSequence([*prompt, *answer], [IGNORE] * len(prompt) + answer)


def _pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> EncodedExample:
    return EncodedExample((_sequence(prompt, chosen), _sequence(prompt, rejected)))


def test_pairs_that_teach_nothing_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    data = rows_of([_pair([5], [6], [7]), _pair([5], [6], [6]), _pair([5], [6], []), _pair([5, 5, 5], [6], [7])])
    pairs = pairs_of(data, DpoOptions(max_prompt_length=2), 42, told=True)
    assert [example.sequences for example in (pairs[0],)] == [data[0].sequences]
    assert len(pairs) == 1
    told = capsys.readouterr().err
    assert "3 of 4 pairs left out: 1 as both answers are the same" in told
    assert "1 as an answer has no token to learn" in told
    assert "1 as the prompt is longer than --max-prompt-length 2" in told


def test_data_without_a_pair_to_learn_from_are_refused() -> None:
    with pytest.raises(DataError, match="none of 1 pairs is left: 1 as both answers are the same"):
        pairs_of(rows_of([_pair([5], [6], [6])]), DpoOptions(), 42, told=False)


def test_answers_without_scores_are_refused() -> None:
    three = EncodedExample(tuple(_sequence([5], [n]) for n in (6, 7, 8)))
    two = EncodedExample(three.sequences[:2], {"scores": (math.nan, math.nan)})
    for unscored in (three, two):
        with pytest.raises(DataError, match="several answers without scores"):
            pairs_of(rows_of([unscored]), DpoOptions(), 42, told=False)


@pytest.mark.parametrize("pairing", ["max_min", "max_max", "max_random", "random"])
def test_pairs_of_scored_answers_are_in_order_and_repeat(pairing: str) -> None:
    scores = (0.5, 2.0, -1.0, 1.0)
    data = rows_of([EncodedExample(tuple(_sequence([5], [n]) for n in range(6, 10)), {"scores": scores})] * 60)
    pairs = pairs_of(data, DpoOptions(dpo_pairing=pairing), 42, told=False)
    assert pairs.chosen == pairs_of(data, DpoOptions(dpo_pairing=pairing), 42, told=False).chosen
    found = {(better, worse) for _, better, worse in pairs.chosen}
    best_first = {(1, 0), (1, 2), (1, 3)}
    assert (
        found
        == {
            "max_min": {(1, 2)},
            "max_max": {(1, 3)},
            "max_random": best_first,
            "random": {*best_first, (3, 0), (3, 2), (0, 2)},
        }[pairing]
    )


def test_behind_each_prompt_stands_the_answer_of_another_one() -> None:
    texts = [([5], [6, 9]), ([5], [7]), ([8, 8], [10, 11, 12])]
    examples = [EncodedExample((_sequence(prompt, answer),), {"desirable": (1.0,)}) for prompt, answer in texts]
    verdicts = verdicts_of(rows_of(examples), None, told=False)
    others = [list(verdicts[place].sequences[1].input_ids) for place in range(3)]
    assert others == [[5, 10, 11, 12], [5, 10, 11, 12], [8, 8, 6, 9]]
    assert list(verdicts[2].sequences[1].labels) == [IGNORE, IGNORE, 6, 9]
    assert verdicts.lengths() == [3 + 4, 2 + 4, 5 + 4]


def test_a_reference_is_computed_once_for_the_same_weights_and_data(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMFLOW_CACHE", str(tmp_path / "cache"))
    job = make_job(tiny_model, tmp_path / "checkpoints", TrainingSettings(lr=1e-3), [_pair([5], [6], [7])])
    other_data = rows_of([_pair([5], [6], [8])])
    counted: list[int] = []
    measured = reference.measure_sequences

    def measure(*arguments: Any) -> Any:
        counted.append(1)
        return measured(*arguments)

    monkeypatch.setattr(reference, "measure_sequences", measure)
    (first,) = reference.reference_logprobs(job, None, [job.data])
    (again,) = reference.reference_logprobs(job, None, [job.data])
    assert first == again
    assert len(counted) == 1
    (changed,) = reference.reference_logprobs(job, None, [other_data])
    assert changed != first
    assert len(counted) == 2
    next(job.model.network.parameters()).data.mul_(1.01)
    (trained,) = reference.reference_logprobs(job, None, [job.data])
    assert trained != first
    assert len(counted) == 3


def test_a_reference_of_another_vocabulary_is_refused(
    lmflow_cli: Callable[..., Any], rows: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    from lmflow_core.testing.tiny import make_tiny_model

    other = make_tiny_model(tmp_path / "other", seed=1)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens([AddedToken("<|another|>")])
    tokenizer.save_pretrained(other)
    data = rows([{"instruction": "hello", "chosen": "the fox", "rejected": "no"}])
    told = lmflow_cli(
        *("finetune", "--model", tiny_model, "--dataset", data, "--objective", "dpo"),
        *("--reference-model", other, "--output", tmp_path / "x"),
    )
    assert told.status != 0
    assert "choose one with the tokenizer of the model" in told.stderr
    assert "--reference-model" in told.stderr


def test_a_prompt_longer_than_the_limit_is_an_error_or_counted(
    lmflow_cli: Callable[..., Any], rows: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    short = {"instruction": "hello", "chosen": "the fox", "rejected": "no"}
    data = rows([short, {**short, "instruction": "hello " * 60}])
    flags = ["finetune", "--model", tiny_model, "--dataset", data, "--objective", "dpo", "--max-length", 40]
    refused = lmflow_cli(*flags, "--output", tmp_path / "x")
    assert refused.status != 0
    assert "--length-policy" in refused.stderr
    cut = lmflow_cli(*flags, "--length-policy", "truncate", "--output", tmp_path / "y", "--max-steps", 1)
    assert cut.status == 0, cut.stderr
    assert "left out for want of a trainable token" in cut.stderr


def test_a_prompt_is_the_one_that_is_answered_and_begins_and_ends_once(tiny_model: Path, tmp_path: Path) -> None:
    from lmflow_core.api import Conversation, Message, Preference, Prompt
    from lmflow_core.data.encoding import Encoder
    from lmflow_core.templates.own import JinjaTemplate

    job = make_job(tiny_model, tmp_path / "checkpoints", TrainingSettings(lr=1e-3), [])
    template = JinjaTemplate(job.model.tokenizer, str(job.model.tokenizer.chat_template))
    encoder = Encoder(job.model.tokenizer, template)
    asked = Message("user", "the quick brown fox")
    chats = [Conversation((asked, Message("assistant", text))) for text in ("jumps", "no")]
    (pair,), (prompt,) = encoder.encode([Preference(*chats)]), encoder.encode([Prompt((asked,))])
    for sequence in pairs_of(rows_of([pair]), DpoOptions(), 42, told=False)[0].sequences:
        start = answer_start(sequence)
        assert list(sequence.input_ids[:start]) == list(prompt.sequences[0].input_ids)
        stop = job.model.tokenizer.control_tokens["<|im_end|>"]
        assert [label for label in sequence.labels if label != IGNORE].count(stop) == 1
        assert list(sequence.labels).index(stop) > start
