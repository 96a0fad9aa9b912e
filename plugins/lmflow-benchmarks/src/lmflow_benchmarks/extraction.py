"""What an answer says: a number, a letter, yes or no, letters, or all of its text.

The types of answers are those of the original LMFlow. It takes the last capital from A to E anywhere in a text, the
first word of three, or all digits when commas are gone; here a letter is one that stands by itself, a word is a whole
word, a comma parts thousands only where three digits follow, and two answers in which nothing is found are not equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from lmflow_benchmarks.options import ANSWER_TYPES

# A sign belongs to a number only where no digit, letter or bracket stands before it, as one does in 3-2.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(rf"(?:(?<![\w.)])([-+−]))?\$?({_DIGITS})(?:[eE]([-+]?\d{{1,3}})(?!\w))?(?:/(\d+))?")
_MARK = "####"  # of GSM8K (arXiv:2110.14168): the answer stands behind it

# What an answer is told by, up to the answer: "The answer to that is", "Answer:", "output =".
_IS = r"(?:[^.:=\n]{0,40}?\s(?:is|would be|will be|should be|must be)\b|\W{0,3}[:=])\W{0,4}"
_STATED = rf"(?i:\b(?:answers?|output)\b{_IS})"
_NAMED = rf"(?i:\b(?:answer|output)\b\W{{0,3}}|\b(?:option|choice)\b(?:{_IS}|\W{{0,3}}))"
# No part of a word, of an abbreviation or of "don't".
_BEFORE, _BEHIND = r"(?<![\w'’.-])", r"(?![\w'’-])(?!\.\w)"


def found_in(text: str, answer_type: str) -> str | None:
    """Return what a text answers, in one form for all ways of writing it; None where it answers nothing.

    Args:
        text: of the answer.
        answer_type: one of ``ANSWER_TYPES``.
    """
    return _EXTRACTORS[ANSWER_TYPES[answer_type]](text)


def _text(text: str) -> str | None:
    return " ".join(text.split()) or None


def _number(text: str) -> str | None:
    """Return the number behind the mark, or the last one; equal numbers are equal texts."""
    _, mark, behind = text.rpartition(_MARK)
    found = list(_NUMBER.finditer(behind if mark else text))
    if not found:
        return None
    sign, digits, power, below = (found[0] if mark else found[-1]).groups()
    value = Fraction(digits.replace(",", "")) * Fraction(10) ** int(power or 0)
    if below is not None and int(below):
        value /= int(below)
    return str(-value if sign in ("-", "−") else value)


def _letter(letters: str, *, first: bool) -> Callable[[str], str | None]:
    """Return what finds the letter of a choice.

    In this order: the text is but the letter; the letter behind "the answer is", "answer:" and the like; behind
    "answer", "option" or "choice" alone; the one that the text begins with, as in ``B) because``; one in brackets; a
    capital that stands by itself. Of several in one of these forms the ``first`` counts, or else the last. The article
    is no letter: a small one counts where no word follows, and a capital A by itself where no small letters do.
    """
    small = letters.lower()
    any_case = letters + small
    marked = rf"[(\[{{]\s?([{any_case}])\s?[)\]}}]"
    told = rf"{_BEFORE}(?:([{letters}]){_BEHIND}|([{small}]){_BEHIND}(?![^\S\n]+\w))"
    forms = [
        re.compile(rf"^\W*([{any_case}])\W*$"),
        re.compile(_STATED + told),
        re.compile(_NAMED + told),
        re.compile(rf"^\s*(?:{marked}|([{any_case}])\s?(?:[):\]]|\.(?!\w)))"),
        re.compile(marked),
        re.compile(rf"{_BEFORE}([{letters}]){_BEHIND}(?!(?<=A)[^\S\n]+[a-z])"),
    ]
    return lambda text: _first_form(forms, text, first=first, form=str.upper)


def _words(*words: str, first: bool) -> Callable[[str], str | None]:
    """Return what finds one of some words, behind "the answer is" or "answer:", or else anywhere: the first or last."""
    word = rf"{_BEFORE}((?i:{'|'.join(words)})){_BEHIND}"
    forms = [re.compile(_STATED + word), re.compile(word)]
    return lambda text: _first_form(forms, text, first=first, form=str.lower)


def _first_form(forms: Sequence[re.Pattern[str]], text: str, *, first: bool, form: Callable[[str], str]) -> str | None:
    for pattern in forms:
        found = [next(group for group in match.groups() if group) for match in pattern.finditer(text)]
        if found:
            return form(found[0] if first else found[-1])
    return None


def _letters(text: str) -> str | None:
    """Return the word behind the last "answer is", or else the last; letters that stand apart make up one word."""
    for told in (re.split(_STATED, text)[-1], text):
        words = re.findall(r"[^\W\d_]+", told)
        if words:
            return "".join(words) if all(len(word) == 1 for word in words) else str(words[-1])
    return None


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "text": _text,
    "number": _number,
    "last letter": _letter("ABCDE", first=False),
    "first letter": _letter("ABCD", first=True),
    "last yes or no": _words("yes", "no", first=False),
    "first yes, no or maybe": _words("yes", "no", "maybe", first=True),
    "letters": _letters,
}
