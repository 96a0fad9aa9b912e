"""Scores for the answers that some data holds, by the rewards that are chosen."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lmflow_core.config.request import Request
from lmflow_core.contracts.reward import AnsweredPrompt
from lmflow_core.contracts.settings import ScoreSettings
from lmflow_core.data.answered import answered
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.errors import DataError, OptionError, OutputError
from lmflow_core.files.atomic import atomic_text
from lmflow_core.generation.second_models import Models
from lmflow_core.models.rewards import Rewards
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console

_ROWS_AT_ONCE = 256
_SUM = "score"


@dataclass
class _Mean:
    """A mean of those numbers that are some."""

    total: float = 0.0
    count: int = 0

    def add(self, numbers: Iterable[float]) -> None:
        known = [number for number in numbers if not math.isnan(number)]
        self.total += math.fsum(known)
        self.count += len(known)

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class ScoreReport:
    """What was scored.

    Attributes:
        rows: how many the data has.
        answers: how many they hold.
        unscored: how many of these a reward gives no number for; means leave them out.
        means: that of the weighted sum as ``score``, and that of each reward by its name, unweighted.
    """

    rows: int = 0
    answers: int = 0
    unscored: int = 0
    means: dict[str, float | None] = field(default_factory=dict)


class _ScoredRow(NamedTuple):
    located: Located
    sums: Sequence[float]
    parts: dict[str, Sequence[float]]


def score_data(request: Request, catalogue: Catalogue) -> ScoreReport:
    """Score every answer; rows with their scores go to the output, if one is asked for.

    Raises:
        LmflowError: the data, a reward or the output cannot be used; nothing half-written is left.
    """
    settings, chosen = request.get(ScoreSettings), request.weighted.get("reward")
    if not chosen:
        raise OptionError("--reward is required: what answers are scored by")
    output = settings.output
    if output is not None and output.exists() and not settings.overwrite:
        raise OutputError(f"{output} exists already: add --overwrite to replace it")
    rewards = Rewards(chosen, catalogue)
    rewards.prepare(Models(catalogue), None)
    found = ExampleReader(catalogue, settings.dataset_format).read(settings.dataset)
    with nullcontext() if output is None else atomic_text(output) as stream:
        return _report(_scored(found, rewards), None if stream is None else stream.write)


def _scored(found: Iterable[Located], rewards: Rewards) -> Iterator[_ScoredRow]:
    rows = ((located, _answers(located, rewards)) for located in console.progress(found, "Scoring"))
    while part := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        columns = rewards.scores([answer for _, answers in part for answer in answers])
        sums = rewards.summed(columns)
        start = 0
        for located, answers in part:
            own = slice(start, start := start + len(answers))
            yield _ScoredRow(located, sums[own], {name: column[own] for name, column in columns.items()})


def _answers(located: Located, rewards: Rewards) -> tuple[AnsweredPrompt, ...]:
    try:
        answers = answered(located)
        for answer in answers:
            rewards.check(answer.prompt)
    except ValueError as error:
        raise DataError(str(error), file=located.file, row=located.row) from error
    return answers


def _report(rows: Iterable[_ScoredRow], write: Callable[[str], object] | None) -> ScoreReport:
    report, means = ScoreReport(), defaultdict[str, _Mean](_Mean)
    for row in rows:
        report.rows += 1
        report.answers += len(row.sums)
        report.unscored += sum(map(math.isnan, row.sums))
        for name, numbers in {_SUM: row.sums, **row.parts}.items():
            means[name].add(numbers)
        if write is not None:
            write(_line(row))
    report.means = {name: mean.value for name, mean in means.items()}
    return report


def _line(row: _ScoredRow) -> str:
    """Return a row with ``score``, or ``scores`` where it has several answers, and the numbers of each reward."""
    added: dict[str, Any] = {_SUM if len(row.sums) == 1 else f"{_SUM}s": _told(row.sums)}
    added["rewards"] = {name: _told(numbers) for name, numbers in row.parts.items()}
    return json.dumps({**row.located.fields, **added}, ensure_ascii=False, default=str) + "\n"


def _told(numbers: Sequence[float]) -> Any:
    """Return numbers as JSON has them: one alone, several as a list; none is null."""
    listed = [None if math.isnan(number) else number for number in numbers]
    return listed[0] if len(listed) == 1 else listed
