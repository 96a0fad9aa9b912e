"""``lmflow evaluate --compare``: runs compared question by question."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Write = Callable[..., Path]
_BEFORE = [1, 0, 0, 1, 0, 0, 1, 0]
_AFTER = [1, 1, 0, 1, 1, 1, 0, 1]


def _questions(values: Sequence[float], **more: Any) -> list[dict[str, Any]]:
    return [{"task": "sums", "id": n, "target": n, "scores": {"acc": v}, **more} for n, v in enumerate(values)]


@pytest.fixture
def before(write_rows: Write) -> Path:
    return write_rows(_questions(_BEFORE), "before.jsonl")


def test_means_differences_and_their_test(lmflow_cli: Run, before: Path, write_rows: Write, tmp_path: Path) -> None:
    after, told = write_rows(_questions(_AFTER), "after.jsonl"), tmp_path / "told.json"
    ran = lmflow_cli("evaluate", "--compare", before, after, "--output-file", told, "--json")
    assert ran.status == 0, ran.stderr
    found = ran.json()
    assert found == json.loads(told.read_text(encoding="utf-8"))
    assert told.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert found["runs"] == [str(before), str(after)]
    (one,) = found["comparisons"]
    assert (one["task"], one["score"], one["questions"]) == ("sums", "acc", 8)
    assert (one["first"]["mean"], one["other"]["mean"]) == (3 / 8, 6 / 8)
    # Five questions moved, four of them up.
    assert one["p"] == pytest.approx((1 + 5) * 2 / 2**5)
    differences = [b - a for a, b in zip(_BEFORE, _AFTER, strict=True)]
    reach = 1.959963984540054 * statistics.stdev(differences) / math.sqrt(8)
    assert one["difference"]["mean"] == 3 / 8
    assert one["difference"]["low"] == pytest.approx(3 / 8 - reach)


def test_people_are_shown_a_table_of_every_run(lmflow_cli: Run, before: Path, write_rows: Write) -> None:
    others = [write_rows(_questions(_AFTER), f"{name}.jsonl") for name in ("after", "again")]
    told = lmflow_cli("evaluate", f"--compare={before},{others[0]},{others[1]}")
    assert f"compared with {before}" in told.stdout
    lines = [line.split() for line in told.stdout.splitlines() if line.startswith("sums")]
    assert [line[2] for line in lines] == [str(other) for other in others]
    assert lines[0][3:7] == ["8", "0.3750", "0.7500", "+0.3750"]


def test_only_what_both_were_asked_counts(lmflow_cli: Run, before: Path, write_rows: Write) -> None:
    after = write_rows([*_questions(_AFTER)[2:], {"task": "more", "id": 0, "scores": {"acc": 1}}], "after.jsonl")
    told = lmflow_cli("evaluate", "--compare", before, after, "--json")
    assert told.json()["comparisons"][0]["questions"] == 6
    assert "3 questions are left out" in told.stderr


def test_filters_are_scores_of_their_own(lmflow_cli: Run, write_rows: Write) -> None:
    rows = [*_questions(_BEFORE, filter="strict"), *_questions(_AFTER, filter="none")]
    files = [write_rows(rows, f"{name}.jsonl") for name in ("one", "other")]
    found = lmflow_cli("evaluate", "--compare", *files, "--json").json()["comparisons"]
    assert [(one["score"], one["first"]["mean"], one["p"]) for one in found] == [
        ("acc (strict)", 3 / 8, 1.0),
        ("acc", 6 / 8, 1.0),
    ]


def test_answers_to_a_prompt_are_one_cluster(lmflow_cli: Run, write_rows: Write) -> None:
    def rows(scores: Sequence[float | None]) -> list[dict[str, Any]]:
        return [{"index": n // 2, "sample": n % 2, "score": s, "rewards": {"exact": s}} for n, s in enumerate(scores)]

    one, other = (
        write_rows(rows([0, 0, 1, None, 0, 1]), "one.jsonl"),
        write_rows(rows([1, 1, 0, 1, 0, 1]), "other.jsonl"),
    )
    found = lmflow_cli("evaluate", "--compare", one, other, "--json").json()["comparisons"]
    assert [comparison["score"] for comparison in found] == ["reward", "exact"]
    # The second answer to the second prompt has no score in the first run.
    assert found[0]["first"]["mean"] == pytest.approx(2 / 5)
    assert found[0]["other"]["mean"] == pytest.approx(3 / 5)
    assert found[0]["questions"] == 3
    # The prompts moved by 2, -1 and 0: half of all ways to swap the first two part the runs as far.
    assert found[0]["p"] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "other.jsonl: it holds no scores: --compare takes what --samples-file wrote"),
        ([{"text": "a"}], "other.jsonl, row 1: this is no row of a question with its scores"),
        (_questions([1]) * 2, "other.jsonl, row 2: question 0 is there twice"),
        (_questions([1], target=5), "other.jsonl, row 1: the answer to question '0' is another one than in row 1 of"),
        (_questions([1], task="other"), "have no question and score in common"),
    ],
)
def test_what_cannot_be_compared_is_told(
    lmflow_cli: Run, before: Path, write_rows: Write, rows: list[dict[str, Any]], problem: str
) -> None:
    told = lmflow_cli("evaluate", "--compare", before, write_rows(rows, "other.jsonl"))
    assert (told.status, told.stdout) == (2, "")
    assert problem in told.stderr


def test_help_names_it(lmflow_cli: Run) -> None:
    assert "--compare PATH,…" in lmflow_cli("evaluate", "--help").stdout
    assert "--model" not in lmflow_cli("evaluate", "--compare", "a", "b", "--help").stdout


def test_two_runs_are_needed(lmflow_cli: Run, before: Path) -> None:
    told = lmflow_cli("evaluate", "--compare", before)
    assert (told.status, told.stdout) == (2, "")
    assert "--compare needs two files that --samples-file wrote" in told.stderr
