"""Data files that are cut, flipped, spliced, lie about lengths, or hold strange values: each gives examples or errors.

Cases run in a worker process, so that one that kills it or hangs is one lost case.
"""

from __future__ import annotations

import random
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from file_damage import damaged
from file_samples import samples
from tally import Tally, campaign_arguments
from workers import Worker

from lmflow_core.data.examples import ExampleReader
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue

_MOST_MEMORY = 1 << 30
_SECONDS = 20.0


class Cases:
    """Makes and reads one damaged file after another, in the worker."""

    def __init__(self) -> None:
        self._catalogue = Catalogue.discover()
        self._samples = samples()
        self._folder = tempfile.TemporaryDirectory(prefix="lmflow-damaged-")

    def __call__(self, case: tuple[str, int, int]) -> str | None:
        """Read the file of one case; return what was lost, if something was."""
        kind, seed, number = case
        generator = random.Random(f"{kind} {seed} {number}")
        file = Path(self._folder.name) / f"rows{kind}"
        file.write_bytes(damaged(self._samples, kind, generator))
        try:
            return self._problem(file)
        except Exception as error:
            return f"case {number}: {type(error).__name__}: {error!s:.200}"

    def _problem(self, file: Path) -> str | None:
        errors: list[DataError] = []
        for _ in ExampleReader(self._catalogue, on_error=errors.append).read([file]):
            pass
        for error in errors:
            if error.file != file and str(error.file) != str(file):
                return f"the message names {error.file}"
            if not error.problem or not error.problem.isprintable():
                return f"the message is {error.problem!r}"
        peak = max(resource.getrusage(who).ru_maxrss * 1024 for who in _PROCESSES)
        return f"memory reached {peak >> 20} MB" if peak > _MOST_MEMORY else None


_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _run(kinds: Sequence[str], cases: int, seed: int) -> Tally:
    tally = Tally()
    worker = Worker(Cases, _SECONDS)
    for number in range(cases):
        kind = kinds[number % len(kinds)]
        tally.add(kind, worker.outcome((kind, seed, number)))
    worker.end()
    return tally


def main() -> None:
    """Run the campaign."""
    cases, generator = campaign_arguments(__doc__, 200_000)
    _run(list(samples()), cases, generator.randrange(1 << 30)).finish()


if __name__ == "__main__":
    main()
