"""Which characters a vocabulary learns, and which pieces of text hold one of them for sure.

This is what keeps all other text as it was: a token that is only ever made where one of these characters stands cannot
be made of a text that has none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache

from lmflow_core.api import RequestError

# A script must have this share of the letters beyond ASCII, so that a name or a quotation does not count as a language.
_LEAST_SHARE = 0.05
_EAST_ASIAN = frozenset(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"))
# CJK symbols and punctuation, halfwidth and fullwidth forms: named after what they look like, not after the script.
_EAST_ASIAN_PUNCTUATION = (range(0x3000, 0x3040), range(0xFF00, 0xFFF0))
_NO_SCRIPT = frozenset(("HALFWIDTH", "FULLWIDTH", "MODIFIER", "LETTER", "COMBINING"))
_SAME = {"IDEOGRAPHIC": "CJK"}
# Characters that share all bytes but the last: a page of this many.
_PAGE = 64
_LARGEST_PREFIX = _PAGE * _PAGE
_ASCII = 0x80


def _words(char: str) -> list[str]:
    return unicodedata.name(char, "").replace("-", " ").split()


def script_of(char: str) -> str | None:
    """Return the script of a letter beyond ASCII, as Unicode names it (``CJK``, ``DEVANAGARI``); None of all else."""
    if ord(char) < _ASCII or not unicodedata.category(char).startswith("L"):
        return None
    word = next((word for word in _words(char) if word not in _NO_SCRIPT), None)
    return None if word is None else _SAME.get(word, word)


def find_scripts(counts: Mapping[str, int], given: Collection[str] = ()) -> frozenset[str]:
    """Return the scripts to learn: those given, else those that a text is written in.

    Args:
        counts: how often each character occurs in the text.
        given: names of scripts, such as ``CJK``; capitals or not.

    Raises:
        RequestError: the text has no letter beyond ASCII, or none of a script that is given.
    """
    letters: dict[str, int] = {}
    for char, count in counts.items():
        if (script := script_of(char)) is not None:
            letters[script] = letters.get(script, 0) + count
    if not letters:
        raise RequestError("--files hold no letter beyond ASCII: there is no new script to learn")
    named = {name.upper() for name in given}
    if missing := sorted(named - letters.keys()):
        there = ", ".join(sorted(letters, key=lambda name: -letters[name])[:8])
        raise RequestError(f"--scripts {missing[0]}: --files hold no letter of it; they hold {there}")
    least = _LEAST_SHARE * sum(letters.values())
    return frozenset(named or (script for script, count in letters.items() if count >= least))


class LearnedCharacters:
    """The characters of some scripts: letters, marks, digits and punctuation that bear the script's name.

    East Asian scripts have their punctuation and fullwidth forms with them. ASCII is never among them, so that
    ``LATIN`` means letters such as ``é``. Code points that Unicode has not assigned yet go with their page.
    """

    def __init__(self, scripts: Collection[str]) -> None:
        self.scripts = tuple(sorted(scripts))
        self._scripts = frozenset(scripts)
        self._east_asian = not _EAST_ASIAN.isdisjoint(scripts)
        self._knows = lru_cache(maxsize=None)(self._looked_up)

    def __contains__(self, char: str) -> bool:
        return self._knows(ord(char))

    def in_text(self, text: str) -> bool:
        """Whether a text holds one of them."""
        return any(self._knows(ord(char)) for char in text)

    def mark_for_sure(self, piece: bytes) -> bool:
        """Whether a piece is made only of texts that hold one of the characters.

        It is whole characters with one of them among these, or the beginning of a character which is one of them
        whatever follows; a space may go before. UTF-8 tells where a character begins, so these bytes are in no text
        that does not hold the character.
        """
        try:
            return self.in_text(piece.decode("utf-8"))
        except UnicodeDecodeError:
            return self._begins_one(piece.removeprefix(b" "))

    def _begins_one(self, piece: bytes) -> bool:
        span = completions(piece)
        return span is not None and len(span) <= _LARGEST_PREFIX and all(map(self._knows, span))

    def _looked_up(self, point: int) -> bool:
        if point < _ASCII:
            return False
        if unicodedata.category(chr(point)) == "Cn":
            first = point - point % _PAGE
            page = [p for p in range(first, first + _PAGE) if unicodedata.category(chr(p)) != "Cn"]
            return bool(page) and all(map(self._knows, page))
        if self._east_asian and any(point in span for span in _EAST_ASIAN_PUNCTUATION):
            return True
        return any(_SAME.get(word, word) in self._scripts for word in _words(chr(point)))


def completions(piece: bytes) -> range | None:
    """Return the code points whose UTF-8 begins with some bytes, fewer than it has; None where there are no such."""
    if not piece:
        return None
    lead = piece[0]
    length = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 0
    if len(piece) >= length or any(byte & 0xC0 != 0x80 for byte in piece[1:]):
        return None
    first = lead & (0x7F >> length)
    for byte in piece[1:]:
        first = first << 6 | byte & 0x3F
    missing = 6 * (length - len(piece))
    least = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    span = range(max(first << missing, least), min((first + 1) << missing, 0x110000))
    # Surrogates are no characters.
    return span if span and not (0xD800 <= span[0] < 0xE000) else None
