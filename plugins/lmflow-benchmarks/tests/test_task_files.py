"""Files of tasks and their rows: every form that an answer may have, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lmflow_benchmarks.marked import marked, segments, unmarked
from lmflow_benchmarks.options import TaskOptions
from lmflow_benchmarks.prompts import Examples
from lmflow_benchmarks.questions import Question, read_question, task_rows
from lmflow_benchmarks.task_file import TaskFile, read_task_file
from lmflow_core.api import RequestError, Segment

_CHOOSE = {"kind": "multiple-choice", "data": "rows.jsonl", "prompt": "{q}?", "choices": "c", "answer": "a"}
_WRITE = {"kind": "exact-match", "data": "rows.jsonl", "prompt": "{q}?", "answer": "a"}


def _task(folder: Path, says: Mapping[str, Any], *rows: Mapping[str, Any]) -> TaskFile:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = folder / "task.yaml"
    file.write_text(json.dumps({key: value for key, value in says.items() if value is not None}), encoding="utf-8")
    return read_task_file(file)


def _question(folder: Path, says: Mapping[str, Any], row: Mapping[str, Any]) -> Question:
    task = _task(folder, says, row)
    return read_question(task, task_rows(task.data)[0])


@pytest.mark.parametrize(
    ("says", "row", "right"),
    [
        ({}, {"c": ["x", "y"], "a": 1}, 1),
        ({}, {"c": ["x", "y"], "a": "y"}, 1),
        ({}, {"c": ["x", "y", "z"], "a": "C"}, 2),
        ({}, {"c": ["B", "A"], "a": "A"}, 1),
        ({}, {"c": ["3", "4"], "a": "4"}, 1),
        ({}, {"c": ["x", "y", "z"], "a": [0, 0, 1]}, 2),
        ({"choices": ["no", "yes"]}, {"a": True}, 1),
        ({"choices": ["{one}", "{many.1}"]}, {"one": "x", "many": ["y", "z"], "a": "z"}, 1),
        ({"choices": "c.text", "labels": "c.label"}, {"c": {"text": ["x", "y"], "label": ["1", "2"]}, "a": "2"}, 1),
        ({"choices": "c.text", "labels": "c.label"}, {"c": {"text": ["x", "y"], "label": ["A", "B"]}, "a": " A"}, 0),
        ({"labels": ["1", "2"]}, {"c": ["x", "y"], "a": 2}, 1),
    ],
)
def test_every_form_of_a_right_choice(says: dict[str, Any], row: dict[str, Any], right: int, tmp_path: Path) -> None:
    assert _question(tmp_path, _CHOOSE | says, {"q": "Q", **row}).right == right


def test_a_choice_may_stand_in_the_prompt(tmp_path: Path) -> None:
    says = _CHOOSE | {"prompt": "{q}", "choices": ["{o1}", "{o2}"], "blank": "_", "labels": ["1", "2"]}
    found = _question(tmp_path, says, {"q": "So _ ran home.", "o1": "Ann", "o2": "Bob", "a": "2"})
    assert [tuple(map(unmarked, way)) for way in found.ways] == [("So Ann", "ran home."), ("So Bob", "ran home.")]
    assert found.right == 1


@pytest.mark.parametrize(
    ("says", "answer", "targets"),
    [
        ({}, 18, ("18",)),
        ({"find_answer": "#### (.+)"}, "9 + 9\n#### 18", ("18",)),
        ({"answer": "a.text"}, {"text": ["Paris", "the city"]}, ("Paris", "the city")),
        ({"answer": "It is {a}."}, "red", ("It is red.",)),
    ],
)
def test_every_form_of_a_written_answer(
    says: dict[str, Any], answer: Any, targets: tuple[str, ...], tmp_path: Path
) -> None:
    assert _question(tmp_path, _WRITE | says, {"q": "Q", "a": answer}).targets == targets


_WRONG = {
    "unknown key": ({"choice": ["x"]}, "task.yaml: unknown key 'choice': did you mean 'choices'?"),
    "unknown kind": ({"kind": "multiple_choices"}, "kind 'multiple_choices' is none of multiple-choice, exact-match"),
    "key of another kind": ({"find": "x"}, "find is nothing that tasks of the kind multiple-choice have"),
    "no prompt": ({"prompt": None}, "prompt must be given"),
    "no choices": ({"choices": None}, "choices must be given: a field that holds them, or a list"),
    "YAML's truth values": ({"choices": [True, False]}, "choices has True, which is no text: write it in quotation"),
    "broken expression": ({**_WRITE, "find": "(a", "choices": None}, "find '(a' is no regular expression: missing )"),
    "Jinja": ({"prompt": "{{q}}"}, "prompt has fields or statements of Jinja: a field is written in one pair"),
    "unknown metric": ({"metrics": ["f1"]}, "metrics has 'f1'; such a task has acc, acc_norm, acc_bytes"),
    "unknown step": ({**_WRITE, "choices": None, "normalize": ["cases"]}, "did you mean 'case'?"),
    "above": ({"data": "../rows.jsonl"}, "data '../rows.jsonl' is not beside the task's file"),
    "elsewhere": ({"examples": "/etc/passwd"}, "examples '/etc/passwd' is not beside the task's file"),
    "Windows": ({"data": "C:\\rows.jsonl"}, "is not beside the task's file"),
    "few tokens": ({**_WRITE, "choices": None, "max_new_tokens": 0}, "must be a whole number of at least 1, not 0"),
}


@pytest.mark.parametrize(("says", "message"), _WRONG.values(), ids=_WRONG)
def test_what_a_file_cannot_say(says: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as raised:
        _task(tmp_path, _CHOOSE | says, {"q": "Q"})
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["", "- kind", "{"])
def test_a_file_that_is_no_mapping_is_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=r"task\.yaml: (a task is a mapping of its keys|broken YAML)"):
        read_task_file(file)


_ROWS = {
    "missing": ({}, {"question": "Q"}, "there is no field 'q'; it has 'c', 'a', 'question'"),
    "near": ({"prompt": "{quesion}"}, {"question": "Q"}, "there is no field 'quesion': did you mean 'question'?"),
    "in a list": ({"prompt": "{c.2}"}, {}, "there is no field 'c.2', as there is no '2' in a list of 2"),
    "no text": ({"prompt": "{c}"}, {}, "the field 'c' is no text or number"),
    "no list": ({"choices": "q"}, {}, "the field 'q', which choices names, must hold a list of texts"),
    "none of them": ({}, {"a": "z"}, "its answer 'z' is none of its 2 choices"),
    "too far": ({}, {"a": 2}, "its answer 2 is none of its 2 choices"),
    "before the first": ({}, {"a": -1}, "its answer -1 is none of its 2 choices"),
    "from 0 or 1": ({}, {"a": "1"}, 'must be said, as in labels: ["1", "2"]'),
    "two right": ({}, {"a": [1, 1]}, "is none of its 2 choices"),
    "empty": ({}, {"c": ["x", " "]}, "choice 2 is empty"),
    "one": ({}, {"c": ["x"]}, "it has less than two choices"),
    "no blank": ({"blank": "_"}, {}, "its prompt has no blank '_' with a text behind it"),
    "no answer": (_WRITE | {"choices": None}, {"a": None}, "the field 'a' is no text or number"),
    "nothing found": (_WRITE | {"choices": None, "find_answer": "#"}, {"a": "x"}, "find_answer finds nothing"),
}


@pytest.mark.parametrize(("says", "row", "message"), _ROWS.values(), ids=_ROWS)
def test_what_a_row_cannot_be(says: dict[str, Any], row: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = {"c": ["x", "y"], "a": 0, **({} if "question" in row else {"q": "Q"}), **row}
    with pytest.raises(RequestError) as raised:
        _question(tmp_path, _CHOOSE | says, whole)
    assert str(raised.value).startswith(f"{tmp_path / 'rows.jsonl'}, row 1: ")
    assert message in str(raised.value)


def test_data_must_be_there_and_have_rows(tmp_path: Path) -> None:
    task = _task(tmp_path, _WRITE)
    with pytest.raises(RequestError, match=r"rows\.jsonl: it has no rows"):
        task_rows(task.data)
    with pytest.raises(RequestError, match=r"other\.jsonl: no such file"):
        task_rows(tmp_path / "other.jsonl")


def _shown(task: TaskFile, **options: Any) -> list[list[str]]:
    rows = task_rows(task.data)
    examples = Examples(task, rows, TaskOptions(**options))
    return [[unmarked(example.ways[0][0]) for example in examples.of(row)] for row in rows]


def test_examples_are_others_than_the_question_and_follow_the_seed(tmp_path: Path) -> None:
    rows = [{"q": str(number), "a": "x"} for number in (*range(6), 5)]  # the last is there twice
    task = _task(tmp_path, _WRITE, *rows)
    shown = _shown(task, num_fewshot=4)
    for row, examples in zip(rows, shown, strict=True):
        assert len(examples) == 4
        assert f"{row['q']}?" not in examples
    assert shown == _shown(task, num_fewshot=4)
    assert shown != _shown(task, num_fewshot=4, fewshot_seed=1)
    first = _task(tmp_path, _WRITE | {"example_choice": "first", "num_fewshot": 2}, *rows)
    assert _shown(first)[:3] == [["1?", "2?"], ["0?", "2?"], ["0?", "1?"]]
    assert _shown(first, num_fewshot=1)[0] == ["1?"]
    assert _shown(_task(tmp_path, _WRITE | {"num_fewshot": 0}, *rows), num_fewshot=1)[0] == []
    with pytest.raises(RequestError, match=r"7 examples are asked for, and .* has 6 besides the question: ask"):
        _shown(task, num_fewshot=7)
    with pytest.raises(RequestError, match="row 6: 6 examples are asked for, and only 5 rows differ"):
        _shown(task, num_fewshot=6)


def test_examples_of_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "shown.jsonl").write_text('{"q": "1", "a": "x"}\n{"q": "9", "a": "x"}\n', encoding="utf-8")
    task = _task(tmp_path, _WRITE | {"examples": "shown.jsonl", "num_fewshot": 1}, {"q": "1", "a": "x"})
    assert _shown(task) == [["9?"]]  # the question is among them
    with pytest.raises(RequestError, match=r"3 examples are asked for, and .*shown\.jsonl has 2: ask for fewer"):
        _shown(task, num_fewshot=3)


def test_marks_keep_data_apart() -> None:
    text = "<s>" + marked(" <s> \ufdd0") + "</s>"
    assert unmarked(text) == "<s> <s> </s>"
    assert segments(text) == [Segment("<s> ", control=True), Segment("<s>"), Segment(" </s>", control=True)]
    assert segments(marked(" ")) == [Segment(" ", control=True)]
    for part in (text.partition("<s> ")[2][1:], text[:-6]):
        with pytest.raises(ValueError, match="only a part of a text from data is left"):
            segments(part)
