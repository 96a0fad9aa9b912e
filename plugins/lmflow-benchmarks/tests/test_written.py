"""What is found in answers and how they are scored, against definitions written out."""

from __future__ import annotations

import random
import re

import pytest

from lmflow_benchmarks.written import answer_score, chrf, f1, find_answer, normalized, rouge_l


@pytest.mark.parametrize(
    ("pattern", "match", "text", "found"),
    [
        (None, "first", " 18 \n", "18"),
        (r"#### (-?[0-9.,]+)", "first", "so #### 1,234 and #### 5", "1,234"),
        (r"#### (-?[0-9.,]+)", "last", "so #### 1,234 and #### 5", "5"),
        (r"-?\d+", "last", "2 and 3 are 5.", "5"),
        (r"(yes)|(no)", "first", "oh no", "no"),
        (r"#### (\d+)", "first", "eighteen", None),
    ],
)
def test_what_is_found(pattern: str | None, match: str, text: str, found: str | None) -> None:
    assert find_answer(None if pattern is None else re.compile(pattern), match, text) == found


@pytest.mark.parametrize(
    ("steps", "one", "other", "same"),
    [
        (["numbers"], "1,234.50", "$1234.5.", True),
        (["numbers"], "-$3", "-3.0", True),
        (["numbers"], "12,34", "1234", False),
        (["numbers"], "1e3", "1000", False),
        (["numbers"], "1" + "0" * 40, "1" + "0" * 39 + "1", False),
        (["numbers"], "-", ".", False),
        ([], "18", "18.0", False),
        (["case"], "STRASSE", "straße", True),
        (["case"], "yes", " yes", False),
        (["whitespace"], " a \n b", "a b", True),
        (["punctuation"], "«a», b!", "a b", True),
        (["case", "punctuation"], "(B)", "b", True),
    ],
)
def test_what_does_not_count(steps: list[str], one: str, other: str, same: bool) -> None:
    assert (normalized(one, steps) == normalized(other, steps)) is same


def test_f1_is_that_of_the_words_in_common() -> None:
    assert f1("The Eiffel Tower, Paris", "an eiffel tower") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert (f1("the", "a"), f1("the", "x"), f1("x", "")) == (1, 0, 0)
    chooser = random.Random(0)
    for _ in range(200):
        one, other = ([chooser.choice("wxyz") for _ in range(chooser.randint(1, 6))] for _ in range(2))
        rest, common = list(other), 0
        for word in one:
            if word in rest:
                rest.remove(word)
                common += 1
        precision, recall = common / len(one), common / len(other)
        wanted = 2 * precision * recall / (precision + recall) if common else 0
        assert f1(" ".join(one), " ".join(other)) == pytest.approx(wanted)


def test_rouge_l_is_that_of_the_longest_common_subsequence() -> None:
    pytest.importorskip("rouge_score", reason="an optional requirement")
    # "police the gunman" is common in this order: 2 of 4 words each, whichever comes first
    assert rouge_l("the gunman police killed", "police killed the gunman") == pytest.approx(0.5)
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)


def test_chrf_is_that_of_n_grams_of_characters() -> None:
    pytest.importorskip("sacrebleu", reason="an optional requirement")
    assert chrf("abcdefg", "abcdefg") == pytest.approx(1)
    # Of n = 1 to 3, as the shorter text has no longer ones: the mean of precision is (3/3 + 2/2 + 1/1) / 3, that of
    # recall (3/6 + 2/5 + 1/4) / 3; recall counts twice.
    precision, recall = 1, (3 / 6 + 2 / 5 + 1 / 4) / 3
    assert chrf("abc", "abcdef") == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_the_best_of_several_answers_counts_and_no_answer_is_worth_nothing() -> None:
    assert answer_score("f1", "red fox", ["blue", "red fox"], []) == 1
    assert answer_score("exact_match", "B", ["a", "b"], ["case"]) == 1
    assert answer_score("exact_match", "B", ["a", "b"], []) == 0
    assert answer_score("exact_match", None, ["None"], []) == 0
