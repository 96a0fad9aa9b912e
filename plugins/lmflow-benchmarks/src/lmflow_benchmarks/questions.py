"""Rows of a task to questions: what is asked, what may be answered, and what is right."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_benchmarks.fields import as_text, field_text, field_value, filled, has_fields, row_error
from lmflow_benchmarks.marked import marked, unmarked
from lmflow_benchmarks.task_file import MULTIPLE_CHOICE, TaskFile
from lmflow_benchmarks.written import find_answer
from lmflow_core.api import DataError, Row, printable, read_rows


@dataclass(frozen=True)
class Question:
    """A question of a task; its texts are marked where they come from data.

    Attributes:
        row: it is made of.
        ways: a context and what may follow, for each choice; of an answer that is written the only one.
        right: which of them is the right one.
        choices: as texts, without marks; of an answer that is written there are none.
        targets: answers that are right, for one that is written.
    """

    row: Row
    ways: tuple[tuple[str, str], ...]
    right: int = 0
    choices: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def task_rows(file: Path) -> list[Row]:
    """Return the rows of a file.

    Raises:
        DataError: it cannot be read, or has none.
    """
    if not file.is_file():
        raise DataError("no such file", file=file)
    rows = list(read_rows(file))
    if not rows:
        raise DataError("it has no rows, so there is nothing to ask", file=file)
    return rows


def read_question(task: TaskFile, row: Row) -> Question:
    """Return the question that a row is.

    Raises:
        DataError: a field is missing or of another kind, or the answer is none of the choices.
    """
    return _with_choices(task, row) if task.kind == MULTIPLE_CHOICE else _written(task, row)


def _written(task: TaskFile, row: Row) -> Question:
    answers = _answers(task.answer, row)
    targets = [find_answer(task.find_answer, "first", answer) for answer in answers]
    if any(target is None for target in targets):
        raise row_error(row, "find_answer finds nothing in its answer")
    way = (filled(task.prompt, row), marked(answers[0]))
    return Question(row, (way,), targets=tuple(target for target in targets if target is not None))


def _answers(answer: str, row: Row) -> list[str]:
    """Return the answers that a row takes for right: one, or those of a list."""
    if has_fields(answer):
        return [unmarked(filled(answer, row))]
    value = field_value(answer, row)
    if not isinstance(value, list):
        return [field_text(answer, row)]
    texts = [as_text(part) for part in value]
    if not texts or None in texts:
        raise row_error(row, f"the field {answer!r} must hold an answer, or a list of some")
    return [text for text in texts if text is not None]


def _with_choices(task: TaskFile, row: Row) -> Question:
    choices = _texts(task.choices, "choices", row)
    if len(choices) < 2:
        raise row_error(row, "it has less than two choices")
    empty = next((number for number, text in enumerate(choices, 1) if not unmarked(text).strip()), None)
    if empty is not None:
        raise row_error(row, f"choice {empty} is empty")
    prompt = filled(task.prompt, row)
    ways = (
        [(prompt, choice) for choice in choices] if task.blank is None else _filled_in(task.blank, prompt, choices, row)
    )
    texts = tuple(unmarked(choice) for choice in choices)
    return Question(row, tuple(ways), right_choice(task, texts, row), texts)


def _filled_in(blank: str, prompt: str, choices: Sequence[str], row: Row) -> list[tuple[str, str]]:
    """Return the prompt up to the blank with each choice in its place, and what follows the blank."""
    before, found, behind = unmarked(prompt).partition(blank)
    if not found or not behind.strip():
        raise row_error(row, f"its prompt has no blank {blank!r} with a text behind it")
    return [(marked(before + unmarked(choice)), marked(behind.strip())) for choice in choices]


def _texts(given: str | tuple[str, ...], key: str, row: Row) -> list[str]:
    """Return the texts of a list of patterns, or of a field that holds a list."""
    if isinstance(given, tuple):
        return [filled(pattern, row) for pattern in given]
    value = field_value(given, row)
    texts = [as_text(part) for part in value] if isinstance(value, list) else [None]
    if None in texts:
        raise row_error(row, f"the field {given!r}, which {key} names, must hold a list of texts")
    return [marked(text) for text in texts if text is not None]


def right_choice(task: TaskFile, choices: Sequence[str], row: Row) -> int:
    """Return which choice a row says is right: its label, its place from 0, a mark at it, its text or its letter.

    Raises:
        DataError: it says so of none.
    """
    value = field_value(task.answer, row)
    if task.labels:
        found = _place(as_text(value), [unmarked(text) for text in _texts(task.labels, "labels", row)])
    elif isinstance(value, list):
        found = value.index(1) if len(value) == len(choices) and value.count(1) == 1 else None
    elif isinstance(value, int):
        found = int(value)
    else:
        found = _place(as_text(value), choices)
        if found is None and isinstance(value, str):
            found = _letter(value.strip())
    if found is None or not 0 <= found < len(choices):
        raise row_error(row, f"its answer {_shown(value)} is none of its {len(choices)} choices{_hint(task, value)}")
    return found


def _place(text: str | None, texts: Sequence[str]) -> int | None:
    stripped = [other.strip() for other in texts]
    return stripped.index(text.strip()) if text is not None and text.strip() in stripped else None


def _letter(text: str) -> int | None:
    return string.ascii_uppercase.index(text) if len(text) == 1 and text in string.ascii_uppercase else None


def _hint(task: TaskFile, value: Any) -> str:
    if not task.labels and isinstance(value, str) and value.strip().isdecimal():
        return ': whether a number in a text counts from 0 or from 1 must be said, as in labels: ["1", "2"]'
    return ""


def _shown(value: Any) -> str:
    return printable(repr(value), 60)
