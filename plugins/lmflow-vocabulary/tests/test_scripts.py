"""Which pieces hold a character of a script for sure."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections import Counter

import pytest

from lmflow_core.api import RequestError
from lmflow_vocabulary.scripts import LearnedCharacters, completions, find_scripts, script_of


def test_prefixes_are_those_of_utf8() -> None:
    characters = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    begun: dict[bytes, list[int]] = {}
    for char in random.Random(0).sample(characters, 20_000):
        encoded = char.encode("utf-8")
        for length in range(1, len(encoded)):
            begun.setdefault(encoded[:length], []).append(ord(char))
    for piece, points in begun.items():
        span = completions(piece)
        if span is None:
            assert piece[:2] == b"\xed\xa0" or b"\xed" in piece, piece
            continue
        assert all(point in span for point in points), piece
    assert completions(b"\xe4\xb8") == range(0x4E00, 0x4E40)
    assert completions("中".encode()) is None
    assert completions(b"\xb8\xad") is None
    assert completions(b"") is None


@pytest.mark.parametrize("script", ["CJK", "DEVANAGARI", "CYRILLIC", "HANGUL", "LATIN"])
def test_a_piece_that_marks_a_script_is_in_no_text_without_it(script: str) -> None:
    characters = LearnedCharacters([script])
    others = [chr(p) for p in range(0x3400) if chr(p) not in characters and unicodedata.category(chr(p)) != "Cn"]
    others += [chr(p) for p in range(0xA000, 0x20000, 7) if not 0xD800 <= p < 0xE000 and chr(p) not in characters]
    rng = random.Random(1)
    text = "".join(rng.choices(others, k=40_000)).encode("utf-8")
    pieces = {text[at : at + size] for at in range(0, len(text), 3) for size in (1, 2, 3, 4, 6)}
    assert not [piece for piece in pieces if characters.mark_for_sure(piece)]
    own = [chr(p) for p in range(0x80, 0x20000) if not 0xD800 <= p < 0xE000 and chr(p) in characters]
    assert all(characters.mark_for_sure(char.encode()) for char in own)
    assert all(characters.mark_for_sure(f" a{char}".encode()) for char in own)
    assert not any(characters.mark_for_sure(char.encode()[1:]) for char in own)


def test_the_beginning_of_a_character_counts_where_all_that_begin_so_do() -> None:
    characters = LearnedCharacters(["CJK"])
    assert characters.mark_for_sure("中".encode()[:2])
    assert characters.mark_for_sure(b" " + "中".encode()[:2])
    # U+4DC0 to U+4DFF are hexagrams, which are of no script.
    assert not characters.mark_for_sure("䷀".encode()[:2])
    assert not LearnedCharacters(["HIRAGANA"]).mark_for_sure("\u3080".encode()[:2])
    assert LearnedCharacters(["HIRAGANA", "KATAKANA"]).mark_for_sure("\u3080".encode()[:2])


def test_a_script_has_its_marks_and_punctuation() -> None:
    assert all(char in LearnedCharacters(["CJK"]) for char in "中。，「１々")
    assert all(char in LearnedCharacters(["DEVANAGARI"]) for char in "कि।१")
    assert not any(char in LearnedCharacters(["CJK", "LATIN"]) for char in "a1 .“”…—")
    assert "é" in LearnedCharacters(["LATIN"])


def test_scripts_of_a_text_are_those_with_a_share() -> None:
    assert script_of("中") == "CJK"
    assert script_of("ｱ") == "KATAKANA"
    assert script_of("a") is script_of("।") is None
    text = Counter("中文" * 100 + "abc é" + "かな" * 40)
    assert find_scripts(text) == {"CJK", "HIRAGANA"}
    assert find_scripts(text, ["latin"]) == {"LATIN"}
    with pytest.raises(RequestError, match="THAI: --files hold no letter of it; they hold CJK, HIRAGANA, LATIN"):
        find_scripts(text, ["Thai"])
    with pytest.raises(RequestError, match="no letter beyond ASCII"):
        find_scripts(Counter("plain text, 1234"))
