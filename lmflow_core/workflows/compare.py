"""Runs of a benchmark compared question by question, from the rows that they kept of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmflow_core.contracts.estimates import Estimate, clustered_mean
from lmflow_core.contracts.source import Row
from lmflow_core.data.rows import read_rows
from lmflow_core.errors import DataError, RequestError
from lmflow_core.workflows.paired_test import sign_flip_test

# A task and a score of it; and a question of the task with the number of its answer.
Measure = tuple[str, str]
Asked = tuple[str, int]


@dataclass(frozen=True)
class Comparison:
    """What one score of one task is in two runs, over the questions that both were asked.

    Intervals are of 95 %; several answers to a question count as one cluster.

    Attributes:
        task: empty where the rows name none.
        score: its name.
        run: the file of the other run.
        questions: how many.
        first: the mean in the run that others are compared with.
        other: the mean in the other.
        difference: of the other from the first, question by question.
        p: two-sided, by :func:`~lmflow_core.workflows.paired_test.sign_flip_test`.
    """

    task: str
    score: str
    run: str
    questions: int
    first: Estimate
    other: Estimate
    difference: Estimate
    p: float


@dataclass
class _Run:
    file: Path
    scores: dict[Measure, dict[Asked, float]] = field(default_factory=dict)
    targets: dict[tuple[str, str], tuple[Any, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedRuns:
    """The runs by their files, what came of each pair, and how many questions only one of a pair was asked."""

    runs: tuple[str, ...]
    comparisons: list[Comparison]
    left_out: int

    def bars(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        """Return the means by score, task and run: what a picture shows."""
        found: dict[str, dict[str, dict[str, Estimate]]] = {}
        for one in self.comparisons:
            means = found.setdefault(one.score, {}).setdefault(one.task, {})
            means.setdefault(self.runs[0], one.first)
            means[one.run] = one.other
        return found


def compare(files: Sequence[Path]) -> ComparedRuns:
    """Compare runs with the first of them.

    Raises:
        DataError: a file has no rows of questions, one twice, or a question whose right answer is another.
        RequestError: there are not two runs, or two have no question in common.
    """
    if len(files) < 2:
        raise RequestError("--compare needs two files that --samples-file wrote: --compare BEFORE.jsonl AFTER.jsonl")
    first, *others = (_read(file) for file in files)
    compared: list[Comparison] = []
    left_out = 0
    for other in others:
        _check_targets(first, other)
        found = [*_compared(first, other)]
        if not found:
            raise RequestError(f"{first.file} and {other.file} have no question and score in common")
        compared += found
        left_out += len(_questions(first) ^ _questions(other))
    return ComparedRuns(tuple(map(str, files)), compared, left_out)


def _read(file: Path) -> _Run:
    run = _Run(file)
    for row in read_rows(file):
        _add(run, row)
    if not run.scores:
        raise DataError("it holds no scores: --compare takes what --samples-file wrote", file=file)
    return run


def _add(run: _Run, row: Row) -> None:
    data = row.value
    task, question = str(data.get("task", "")), data.get("id", data.get("index"))
    scores = _scores(data)
    if question is None or scores is None:
        problem = "this is no row of a question with its scores: --compare takes what --samples-file wrote"
        raise DataError(problem, file=row.file, row=row.number)
    asked = (str(question), int(data.get("sample", 0)))
    run.targets[task, asked[0]] = (data.get("target"), row.number)
    for name, value in scores.items():
        if isinstance(value, bool | int | float) and math.isfinite(value):
            values = run.scores.setdefault((task, name), {})
            if asked in values:
                raise DataError(f"question {question!r} is there twice", file=row.file, row=row.number)
            values[asked] = float(value)


def _scores(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the scores of a row by name: of a benchmark's question, or of an answer that rewards were given for."""
    scores = data.get("scores")
    if isinstance(scores, Mapping):
        filtered = data.get("filter", "none")
        return {name if filtered == "none" else f"{name} ({filtered})": value for name, value in scores.items()}
    rewards = data.get("rewards")
    return {"reward": data.get("score"), **rewards} if isinstance(rewards, Mapping) else None


def _check_targets(first: _Run, other: _Run) -> None:
    for question in first.targets.keys() & other.targets.keys():
        (expected, number), (found, row) = first.targets[question], other.targets[question]
        if expected != found:
            problem = f"the answer to question {question[1]!r} is another one than in row {number} of {first.file}"
            raise DataError(f"{problem}: both must be asked the same", file=other.file, row=row)


def _questions(run: _Run) -> set[tuple[str, Asked]]:
    return {(task, asked) for (task, _), values in run.scores.items() for asked in values}


def _compared(first: _Run, other: _Run) -> Iterator[Comparison]:
    for (task, score), before in first.scores.items():
        after = other.scores.get((task, score), {})
        both = [asked for asked in before if asked in after]
        if not both:
            continue
        differences = {asked: after[asked] - before[asked] for asked in both}
        yield Comparison(
            task=task,
            score=score,
            run=str(other.file),
            questions=len({question for question, _ in both}),
            first=_mean({asked: before[asked] for asked in both}),
            other=_mean({asked: after[asked] for asked in both}),
            difference=_mean(differences),
            p=sign_flip_test([math.fsum(each) for each in _by_question(differences)]),
        )


def _by_question(values: Mapping[Asked, float]) -> list[list[float]]:
    clusters: dict[str, list[float]] = {}
    for (question, _), value in values.items():
        clusters.setdefault(question, []).append(value)
    return [*clusters.values()]


def _mean(values: Mapping[Asked, float]) -> Estimate:
    clusters = _by_question(values)
    found = clustered_mean([math.fsum(each) for each in clusters], [len(each) for each in clusters])
    assert found is not None, "there is at least one question"
    return found
