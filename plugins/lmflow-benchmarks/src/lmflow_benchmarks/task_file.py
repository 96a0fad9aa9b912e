"""A task's file: what it may say, and how that is read. It is data; nothing in it is run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lmflow_benchmarks.fields import check_pattern
from lmflow_core.api import RequestError, printable, read_mapping

MULTIPLE_CHOICE, EXACT_MATCH, GENERATION = "multiple-choice", "exact-match", "generation"
# Of each kind the metrics it may have, those first that it has when none are named.
_WRITTEN = ("exact_match", "f1", "rouge_l", "chrf")
_METRICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    MULTIPLE_CHOICE: (("acc", "acc_norm"), ("acc", "acc_norm", "acc_bytes")),
    EXACT_MATCH: (("exact_match",), _WRITTEN),
    GENERATION: (("f1",), _WRITTEN),
}
NORMALIZATIONS = ("case", "punctuation", "whitespace", "numbers")
_OF_CHOICES = ("choices", "labels", "blank")
_OF_ANSWERS = ("stops", "max_new_tokens", "find", "match", "find_answer", "normalize")
_NEEDED = ("kind", "data", "prompt", "answer")


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """What a task's file says; its keys are these fields but ``path``.

    Attributes:
        path: the file.
        name: what its figures are called by.
        kind: ``multiple-choice``, ``exact-match`` or ``generation``.
        data: its questions.
        prompt: a text with fields.
        answer: the field that says what is right, or, where answers are written, a text with fields.
        choices: the field that holds them, or a text with fields for each.
        labels: what ``answer`` calls the choices: a field, or a list.
        blank: a text in the prompt that a choice takes the place of.
        description: a text before the examples.
        examples: their file; the data when None.
        example_choice: ``random`` or ``first``.
        num_fewshot: how many examples; none when None, and 0 is never more.
        separator: between a prompt and its answer.
        example_separator: behind each example.
        stops: texts that end an answer.
        max_new_tokens: longest answer.
        find: what finds the answer in what the model writes.
        match: which match of it counts, ``first`` or ``last``.
        find_answer: what finds the answer in that of the row.
        normalize: what does not count when answers are compared.
        metrics: what is measured.
    """

    path: Path
    name: str
    kind: str
    data: Path
    prompt: str
    answer: str
    choices: str | tuple[str, ...] = ()
    labels: str | tuple[str, ...] = ()
    blank: str | None = None
    description: str = ""
    examples: Path | None = None
    example_choice: str = "random"
    num_fewshot: int | None = None
    separator: str = " "
    example_separator: str = "\n\n"
    stops: tuple[str, ...] = ()
    max_new_tokens: int = 256
    find: re.Pattern[str] | None = None
    match: str = "first"
    find_answer: re.Pattern[str] | None = None
    normalize: tuple[str, ...] = ("whitespace",)
    metrics: tuple[str, ...] = ()


def read_task_file(path: Path) -> TaskFile:
    """Return what a task's file says.

    Raises:
        RequestError: it cannot be read, says what no task can, or leaves out what one needs.
    """
    values = read_mapping(path, "a task is a mapping of its keys (kind, data, prompt, answer, …) to what they say")
    _check_keys(path, values)
    read: dict[str, Any] = {"path": path, "name": path.stem}
    for key, value in values.items():
        try:
            read[key] = _READERS[key](value)
        except ValueError as error:
            raise RequestError(f"{path}: {key} {error}") from error
    for key in ("data", "examples"):
        if key in read:
            read[key] = _beside(path, key, read[key])
    return TaskFile(**_with_defaults(path, read))


def _check_keys(path: Path, values: Mapping[str, object]) -> None:
    known = [field.name for field in fields(TaskFile) if field.name != "path"]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise RequestError(f"{path}: unknown key {printable(key, 80)!r}: {hint}")
    missing = [key for key in _NEEDED if key not in values]
    if missing:
        raise RequestError(f"{path}: {', '.join(missing)} must be given")


def _with_defaults(path: Path, read: dict[str, Any]) -> dict[str, Any]:
    """Return what was read with the defaults that belong to its kind."""
    kind = read["kind"]
    chooses = kind == MULTIPLE_CHOICE
    for key in read:
        if key in (_OF_ANSWERS if chooses else _OF_CHOICES):
            raise RequestError(f"{path}: {key} is nothing that tasks of the kind {kind} have: leave it out")
    if chooses and not read.get("choices"):
        raise RequestError(f"{path}: choices must be given: a field that holds them, or a list")
    usual, known = _METRICS[kind]
    if read.get("blank") is not None:
        usual = known = ("acc",)
    for metric in read.get("metrics", ()):
        if metric not in known:
            raise RequestError(f"{path}: metrics has {printable(metric, 80)!r}; such a task has {', '.join(known)}")
    read["metrics"] = read.get("metrics") or usual
    if not chooses:
        read.setdefault("stops", (read.get("example_separator", TaskFile.example_separator),))
    return read


def _beside(path: Path, key: str, name: str) -> Path:
    """Return a file beside the task's: a folder with tasks of somebody else reads nothing that is not in it."""
    leaves = any(
        part == ".." or form(name).anchor for form in (PurePosixPath, PureWindowsPath) for part in form(name).parts
    )
    if leaves:
        raise RequestError(
            f"{path}: {key} {printable(name, 200)!r} is not beside the task's file or in a folder there: a task is "
            "that file and what lies with it; put the data there, or a link to it"
        )
    return path.parent / name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {_shown(value)}")
    return value


def _name(value: object) -> str:
    if not _text(value).strip() or not _text(value).isprintable():
        raise ValueError("must be a text of printable characters")
    return _text(value).strip()


def _pattern(value: object) -> str:
    check_pattern(_text(value))
    return _text(value)


def _count(least: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"must be a whole number of at least {least}, not {_shown(value)}")
        return value

    return read


def _one_of(*known: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in known:
            near = difflib.get_close_matches(str(value), known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{_shown(value)} is none of {', '.join(known)}{hint}")
        return str(value)

    return read


def _several(one: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        return tuple(one(part) for part in (value if isinstance(value, list) else [value]))

    return read


def _field_or_patterns(value: object) -> str | tuple[str, ...]:
    """Read the name of a field, or a list of texts; YAML takes some texts of a list for numbers or truth values."""
    if not isinstance(value, Sequence) or not value:
        raise ValueError(f"must be a field or a list of texts, not {_shown(value)}")
    if isinstance(value, str):
        return value
    for part in value:
        if not isinstance(part, str):
            raise ValueError(f"has {_shown(part)}, which is no text: write it in quotation marks")
    return tuple(_pattern(part) for part in value)


def _expression(value: object) -> re.Pattern[str]:
    try:
        return re.compile(_text(value))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{_shown(value)} is no regular expression: {error}") from error


def _shown(value: object) -> str:
    return printable(repr(value), 80)


_READERS: dict[str, Callable[[object], Any]] = {
    "name": _name,
    "kind": _one_of(MULTIPLE_CHOICE, EXACT_MATCH, GENERATION),
    "data": _name,
    "prompt": _pattern,
    "answer": _pattern,
    "choices": _field_or_patterns,
    "labels": _field_or_patterns,
    "blank": _name,
    "description": _text,
    "examples": _name,
    "example_choice": _one_of("random", "first"),
    "num_fewshot": _count(0),
    "separator": _text,
    "example_separator": _text,
    "stops": _several(_text),
    "max_new_tokens": _count(1),
    "find": _expression,
    "match": _one_of("first", "last"),
    "find_answer": _expression,
    "normalize": _several(_one_of(*NORMALIZATIONS)),
    "metrics": _several(_name),
}
