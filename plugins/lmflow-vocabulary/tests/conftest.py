"""What the tests of this plugin share: text of a language that nobody speaks, in any script."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

# Blocks of Unicode: letters, marks, punctuation and symbols of twenty scripts.
BLOCKS = {
    "Latin": (0x0020, 0x024F), "Greek": (0x0370, 0x03FF), "Cyrillic": (0x0400, 0x04FF), "Armenian": (0x0530, 0x058F),
    "Hebrew": (0x0590, 0x05FF), "Arabic": (0x0600, 0x06FF), "Devanagari": (0x0900, 0x097F), "Bengali": (0x0980, 0x09FF),
    "Tamil": (0x0B80, 0x0BFF), "Telugu": (0x0C00, 0x0C7F), "Thai": (0x0E00, 0x0E7F), "Tibetan": (0x0F00, 0x0FFF),
    "Georgian": (0x10A0, 0x10FF), "Hangul": (0xAC00, 0xD7A3), "Ethiopic": (0x1200, 0x137F), "Khmer": (0x1780, 0x17FF),
    "Kana": (0x3040, 0x30FF), "CJK": (0x4E00, 0x9FFF), "Punctuation": (0x2000, 0x206F), "Emoji": (0x1F300, 0x1F6FF),
}  # fmt: skip


def write_language(file: Path, block: str, *, lines: int = 200, letters: int = 60, seed: int = 0) -> Path:
    """Write lines of words in a script, some of them far more often than others."""
    rng = random.Random(seed)
    first, last = BLOCKS[block]
    alphabet = [c for c in map(chr, range(first, last + 1)) if c.isalpha() and ord(c) >= 0x80][:letters]
    words = ["".join(rng.choices(alphabet, k=rng.randint(1, 4))) for _ in range(80)]
    weights = [1 / place for place in range(1, len(words) + 1)]
    text = [" ".join(rng.choices(words, weights, k=12)) + "." for _ in range(lines)]
    file.write_text("\n".join(text) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def language(tmp_path: Path) -> Callable[..., Path]:
    """Write a file in a script: ``language("CJK", lines=100)``."""
    return lambda block, **changes: write_language(tmp_path / f"{block}.txt", block, **changes)


@pytest.fixture(scope="session")
def code_and_english() -> list[str]:
    """Return 10,000 lines of the standard library: code, and English in its comments and docstrings."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = (file for file in sorted(folder.glob("*.py")) if file.read_bytes().isascii())
    lines = (line for file in files for line in file.read_text(encoding="ascii").splitlines() if line.strip())
    found = list(islice(lines, 10_000))
    assert len(found) == 10_000
    return found


@pytest.fixture(scope="session")
def twenty_scripts() -> list[str]:
    """Return 10,000 random texts, each of one of twenty blocks of Unicode."""
    rng = random.Random(3)
    texts = []
    for number in range(10_000):
        first, last = list(BLOCKS.values())[number % len(BLOCKS)]
        texts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 30))))
    return texts
