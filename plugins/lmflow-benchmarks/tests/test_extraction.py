"""What answers say, by the type of answer; beside each is what the original LMFlow's rule would make a mistake of."""

from __future__ import annotations

import pytest

from lmflow_benchmarks.extraction import found_in
from lmflow_benchmarks.options import ANSWER_TYPES

_NUMBERS = ("math", "gsm8k", "svamp", "asdiv", "addsub", "singleeq", "multiarith")
_LAST_LETTER, _FIRST_LETTER = ("aqua", "csqa", "multiple_choice"), ("medmcqa", "usmle")
_LAST_WORD, _FIRST_WORD = ("strategyqa", "coin_flip"), ("pubmedqa", "binary_choice")
_CASES: list[tuple[tuple[str, ...], str, str | None]] = [
    (_NUMBERS, "It costs $1,234.50.", "2469/2"),
    (_NUMBERS, "5 apples\n#### 12 apples for 3", "12"),
    (_NUMBERS, "That is 3-2", "2"),
    (_NUMBERS, "so -7", "-7"),
    (_NUMBERS, "so −$7.", "-7"),
    (_NUMBERS, "= 5 - 3.", "3"),
    (_NUMBERS, "(2)-3", "3"),
    (_NUMBERS, "1,2,3", "3"),  # not 123
    (_NUMBERS, "3.2", "16/5"),  # not 3
    (_NUMBERS, "3.0 kg", "3"),
    (_NUMBERS, "12kg", "12"),
    (_NUMBERS, "x = 3/4", "3/4"),
    (_NUMBERS, "0.75", "3/4"),
    (_NUMBERS, "It is 1e3.", "1000"),
    (_NUMBERS, "It is 7.", "7"),
    (_NUMBERS, "seven", None),
    (_LAST_LETTER, "B", "B"),
    (_LAST_LETTER, " (c) ", "C"),
    (_LAST_LETTER, "The answer is (B).", "B"),
    (_LAST_LETTER, "The answer to this question is **D**", "D"),
    (_LAST_LETTER, "The answer is A because dogs bark", "A"),
    (_LAST_LETTER, "Answer: d\nQuestion: none", "D"),
    (_LAST_LETTER, "A dog, Eve and a cat: the answer is B, done. BAD", "B"),  # not D
    (_LAST_LETTER, "Of the choices (A) one, (B) two, the answer is (A). Not (C)", "A"),
    (_LAST_LETTER, "The answer is A. No, wait: the answer is C.", "C"),
    (_LAST_LETTER, "B) because it is", "B"),
    (_LAST_LETTER, "Hepatitis, so (D)", "D"),
    (_LAST_LETTER, "I don't know, C", "C"),
    (_LAST_LETTER, "Option A is wrong, option E is right", "E"),
    (_LAST_LETTER, "The answer is a dog.", None),
    (_LAST_LETTER, "A dog barks.", None),
    (_LAST_LETTER, "CABBAGE, Dave's BED", None),
    (_LAST_LETTER, "E.g. in the U.S.A.", None),
    (_LAST_LETTER, "F", None),
    (_FIRST_LETTER, "Answer: b\nQuestion: what? Answer: c", "B"),
    (_FIRST_LETTER, "The answer is C.", "C"),
    (_FIRST_LETTER, "The correct answer to the question is D, as Clark said", "D"),
    (_FIRST_LETTER, "Output: a", "A"),
    (_FIRST_LETTER, "A doctor says (b), then (c)", "B"),
    (_FIRST_LETTER, "E", None),
    (_FIRST_LETTER, "a bacterium", None),
    (_LAST_WORD, "Nobody knows. Yes.", "yes"),
    (_LAST_WORD, "yes, but NO", "no"),
    (_LAST_WORD, "So the answer is yes. There is no doubt.", "yes"),
    (_LAST_WORD, "Answer yes or no: no", "no"),
    (_LAST_WORD, "I know nothing of yesterday", None),
    (_FIRST_WORD, "answer: maybe. no", "maybe"),
    (_FIRST_WORD, "No study was made. Output: Yes", "yes"),
    (_FIRST_WORD, "We know that yes, no", "yes"),
    (_FIRST_WORD, "another one cannot say", None),
    (("last_letters",), 'The last letters are n and k. The answer is "nk".', "nk"),
    (("last_letters",), "'nk'\n", "nk"),
    (("last_letters",), "n k", "nk"),
    (("last_letters",), "so it is NK", "NK"),
    (("last_letters",), "12!", None),
    (("text", "text2text"), " The\n dog ", "The dog"),
    (("text", "text2text"), " \n", None),
]


@pytest.mark.parametrize(("types", "text", "found"), _CASES)
def test_what_an_answer_says(types: tuple[str, ...], text: str, found: str | None) -> None:
    assert {answer_type: found_in(text, answer_type) for answer_type in types} == dict.fromkeys(types, found)


def test_each_type_has_cases() -> None:
    assert {answer_type for types, _, _ in _CASES for answer_type in types} == set(ANSWER_TYPES)
