"""Files that can be read from top to bottom."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

_CORE = Path(__file__).parents[2] / "lmflow_core"
_LINES = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(_CORE.rglob("*.py"))}
_LONG = [path for path, count in _LINES.items() if count > 300]


def test_most_files_of_the_core_are_short() -> None:
    assert statistics.median(_LINES.values()) <= 100


def test_a_long_file_says_why_it_is_one() -> None:
    unexplained = [path for path in _LONG if "in one file" not in (_docstring(path) or "")]
    assert unexplained == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
