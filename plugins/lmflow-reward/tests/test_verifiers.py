"""What verifiers make of single answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import AnsweredPrompt, Message, Prompt, RequestError
from lmflow_reward.rewards.exact import Exact, Regex
from lmflow_reward.rewards.length import Length
from lmflow_reward.rewards.numbers import Arithmetic, number_of
from lmflow_reward.rewards.options import ExactOptions, JsonSchemaOptions, LengthOptions, RegexOptions
from lmflow_reward.rewards.schema import JsonSchema

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def _score(reward: Any, answer: str, fields: Mapping[str, Any] | None = None) -> float:
    prompt = Prompt((Message("user", "?"),), (), fields or {})
    (found,) = reward.score([AnsweredPrompt(prompt, answer)])
    return float(found)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 5.", 5),
        ("2 + 3 = 5", 5),
        ("First 7, then\n#### 1,234", 1234),
        ("#### -3 apples, of 4", -3),
        ("#### $18.50", 18.5),
        ("from 10-3 follows 7", 7),
        ("It fell to −4", -4),
        (".5", 0.5),
        ("1e3", 1000),
        ("none", None),
        ("", None),
        ("#### ", None),
    ],
)
def test_the_number_of_a_text(text: str, number: float | None) -> None:
    assert number_of(text) == number


def test_arithmetic_takes_rows_as_gsm8k_has_them_and_numbers() -> None:
    assert _score(Arithmetic(), "So 9 * 2 = 18.", {"answer": "<<9*2=18>>18\n#### 18"}) == 1
    assert _score(Arithmetic(), "#### 19", {"answer": "#### 18"}) == 0
    assert _score(Arithmetic(), "18.0", {"answer": 18}) == 1
    with pytest.raises(ValueError, match="the field 'answer' holds no number: 'eighteen'"):
        Arithmetic().check(Prompt((), (), {"answer": "eighteen"}))


def test_exact_takes_one_of_several_and_spaces_as_they_come() -> None:
    assert _score(Exact(), " Paris\n", {"answer": "Paris"}) == 1
    assert _score(Exact(), "paris", {"answer": "Paris"}) == 0
    assert _score(Exact(ExactOptions(exact_ignore_case=True)), "paris", {"answer": ["Paris", "Lutetia"]}) == 1
    assert _score(Exact(ExactOptions(exact_field="gold")), "5", {"gold": 5}) == 1
    with pytest.raises(ValueError, match=r"no field 'gold' \(it has 'answer'\); name another with --exact-field"):
        Exact(ExactOptions(exact_field="gold")).check(Prompt((), (), {"answer": "x"}))


def test_a_pattern_matches_the_whole_or_a_part() -> None:
    assert _score(Regex(RegexOptions(regex_pattern=r"\{.*\}")), "{\n}\n") == 1
    assert _score(Regex(RegexOptions(regex_pattern=r"\{.*\}")), "So: {}") == 0
    assert _score(Regex(RegexOptions(regex_pattern=r"\{.*\}", regex_search=True)), "So: {}") == 1


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('{"name": "Ada", "age": 36, "x": 1}', 0.9),
        ('{"name": "Ada", "age": "36"}', 0.7),
        ('{"name": "Ada"}', 0.7),
        ('{"other": 1}', 0.5),
        ("[]", 0.5),
        ("5", 0.5),
        ('Here: {"name": "Ada", "age": 36}', 0.25),
        ("{name: Ada}", 0),
        ("", 0),
    ],
)
def test_json_is_worth_what_is_right_of_it(answer: str, score: float) -> None:
    fields = {"schema": _SCHEMA}
    assert _score(JsonSchema(), answer, fields) == pytest.approx(score)
    assert _score(JsonSchema(JsonSchemaOptions(json_schema_strict=True)), answer, fields) == float(score == 1)
    assert _score(JsonSchema(), answer, {"schema": json.dumps(_SCHEMA)}) == pytest.approx(score)


def test_a_schema_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(_SCHEMA), encoding="utf-8")
    assert _score(JsonSchema(JsonSchemaOptions(json_schema_file=file)), '{"name": "Ada", "age": 36}') == 1
    for text, problem in (
        ("{", "Expecting"),
        ('{"type": "objekt"}', "no JSON schema"),
        ("[]", "is an object, not a list"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(RequestError, match=problem):
            JsonSchema(JsonSchemaOptions(json_schema_file=file))
    with pytest.raises(RequestError, match="cannot be read"):
        JsonSchema(JsonSchemaOptions(json_schema_file=tmp_path / "none.json"))


def test_a_schema_elsewhere_is_not_fetched() -> None:
    fields = {"schema": {"$ref": "http://127.0.0.1:9/schema.json"}}
    with pytest.raises(RequestError, match="refers to another that is not in it"):
        _score(JsonSchema(), "{}", fields)


def test_length_falls_outside_of_its_bounds() -> None:
    reward = Length(LengthOptions(length_least=2, length_most=4))
    answers = ("", "a", "a b", "a b c d", "a b c d e", "a " * 8, "a " * 20)
    assert [_score(reward, answer) for answer in answers] == [0, 0.5, 1, 1, 0.75, 0, 0]
    assert _score(Length(LengthOptions(length_most=3, length_unit="characters")), "abc") == 1
    with pytest.raises(ValueError, match="--length-least 5 is above --length-most 4"):
        LengthOptions(length_least=5, length_most=4)


_ROWS = [
    {"question": "2 + 3?", "answer": "It is 5.\n#### 5"},
    {"question": "1,000 + 1?", "answer": "#### 1,001"},
]


def _data(rows: list[dict[str, Any]], folder: Path) -> Path:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def test_rows_are_written_with_their_scores(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "scored" / "rows.jsonl"
    flags = ("--dataset", _data(_ROWS, tmp_path), "--reward", "arithmetic=2,length=-0.5", "--length-most", 2)
    told = lmflow_cli("data", "score", *flags, "--output", output, "--json")
    assert told.json() == {
        "rows": 2,
        "answers": 2,
        "unscored": 0,
        "means": {"score": 1.75, "arithmetic": 1.0, "length": 0.5},
    }
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert written == [
        {**_ROWS[0], "score": 2.0, "rewards": {"arithmetic": 1.0, "length": 0.0}},
        {**_ROWS[1], "score": 1.5, "rewards": {"arithmetic": 1.0, "length": 1.0}},
    ]
    assert "add --overwrite" in lmflow_cli("data", "score", *flags, "--output", output).stderr


def test_pairs_and_lists_have_a_score_for_each_answer(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    output = tmp_path / "scored.jsonl"
    rows = [
        {"prompt": "2 + 3?", "chosen": "5", "rejected": "six"},
        {"prompt": "2 + 2?", "chosen": "four", "rejected": "4"},
    ]
    flags = ("--reward", "regex", "--regex-pattern", r"\d", "--output", output, "--overwrite")
    assert lmflow_cli("data", "score", "--dataset", _data(rows, tmp_path), *flags).status == 0
    assert [json.loads(line)["scores"] for line in output.read_text().splitlines()] == [[1, 0], [0, 1]]
    listed = [{"input": "2 + 3?", "output": ["5", "five", "7"]}]
    assert lmflow_cli("data", "score", "--dataset", _data(listed, tmp_path), *flags).status == 0
    assert [json.loads(line)["scores"] for line in output.read_text().splitlines()] == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ((), "--reward is required"),
        (("--reward", "aritmetic"), "Did you mean 'arithmetic'?"),
        (("--reward", "length=much"), "the weight 'much' is no number"),
        (("--reward", "length,length"), "length comes twice"),
        (
            ("--reward", "length", "--regex-pattern", "x"),
            "--regex-pattern belongs to reward 'regex': add --reward regex",
        ),
        (("--reward", "regex", "--regex-pattern", "("), "--regex-pattern '(' is no regular expression"),
        (("--reward", "exact", "--exact-field", "gold"), "row 1: reward exact: the row has no field 'gold'"),
    ],
)
def test_wrong_requests_are_told(
    flags: tuple[str, ...], problem: str, lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    output = tmp_path / "scored.jsonl"
    told = lmflow_cli("data", "score", "--dataset", _data(_ROWS, tmp_path), "--output", output, *flags)
    assert told.status == 2
    assert problem in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_has_no_answer_is_told_by_its_row(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    told = lmflow_cli("data", "score", "--dataset", _data([{"prompt": "Hi"}], tmp_path), "--reward", "length")
    assert told.status == 2
    assert "row 1: a prompt example has no answer to a prompt that could be scored" in told.stderr
