"""Counts what became of the cases of a campaign, and ends it with a table."""

from __future__ import annotations

import argparse
import random
from collections import Counter

from lmflow_core.report.console import table

_SHOWN = 40


class Tally:
    """How many cases of each kind were tried, and what was lost."""

    def __init__(self) -> None:
        self._tried: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._problems: list[str] = []

    def add(self, kind: str, problem: str | None = None) -> None:
        """Count one case; ``problem`` tells what was lost in it, None that it survived."""
        self._tried[kind] += 1
        if problem is not None:
            self._lost[kind] += 1
            self._problems.append(f"{kind}: {problem}")

    def finish(self) -> None:
        """Print the table and the first problems.

        Raises:
            SystemExit: with status 1 when a case was lost.
        """
        rows = [(kind, tried, tried - self._lost[kind], self._lost[kind]) for kind, tried in self._tried.items()]
        rows.append(("all", self._tried.total(), self._tried.total() - self._lost.total(), self._lost.total()))
        print(table(("KIND", "CASES", "SURVIVED", "LOST"), rows))
        for problem in self._problems[:_SHOWN]:
            print(problem)
        if self._problems:
            raise SystemExit(1)


def campaign_arguments(description: str | None, cases: int) -> tuple[int, random.Random]:
    """Read ``--cases`` and ``--seed``; return the number of cases and the source of every random choice."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=cases, help=f"how many cases; {cases} when left out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    return arguments.cases, random.Random(arguments.seed)
