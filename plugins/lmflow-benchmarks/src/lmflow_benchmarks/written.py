"""Answers that a model wrote: what is found in them, and how like the right ones that is."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from lmflow_core.api import RequestError, how_to_install

# A sign, a currency, digits with or without separators of thousands, decimals, and a full stop behind it all.
_NUMBER = re.compile(r"([-+]?)[$€£¥]?([-+]?)(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?\.?")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def find_answer(expression: re.Pattern[str] | None, match: str, text: str) -> str | None:
    """Return what an expression finds in a text: its first group that took part, or all it matched.

    Without an expression it is the text. Where nothing matches it is None.

    Args:
        expression: a regular expression.
        match: ``first`` or ``last``.
        text: to look in.
    """
    if expression is None:
        return text.strip()
    matches = list(expression.finditer(text))
    if not matches:
        return None
    chosen = matches[0 if match == "first" else -1]
    groups = [group for group in chosen.groups() if group is not None]
    return (groups[0] if groups else chosen.group()).strip()


def normalized(text: str, steps: Sequence[str]) -> str:
    """Return a text without what does not count.

    Args:
        text: to compare.
        steps: some of ``numbers`` (1,234.50 is $1234.5), ``case``, ``punctuation``, ``whitespace``.
    """
    number = _as_number(text) if "numbers" in steps else None
    if number is not None:
        return number
    if "case" in steps:
        text = text.casefold()
    if "punctuation" in steps:
        text = "".join(c for c in text if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
    return " ".join(text.split()) if "whitespace" in steps else text


def _as_number(text: str) -> str | None:
    """Return a number in the one way to write it, or None for a text that is none."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None or not (found[3] or found[4]) or (found[1] and found[2]):
        return None
    sign = "-" if "-" in (found[1], found[2]) else ""
    whole, point, decimals = f"{sign}{(found[3] or '0').replace(',', '')}{found[4] or ''}".partition(".")
    plain = whole + (point + decimals).rstrip("0").rstrip(".") if point else whole
    return format(Decimal(plain), "f")


def f1(answer: str, target: str) -> float:
    """Return the F1 of the words of an answer and of the right one, as SQuAD 1.1 defines it (arXiv:1606.05250).

    Case, ASCII punctuation and English articles do not count; a word is what stands between white space.
    """
    words, wanted = _words(answer), _words(target)
    common = (Counter(words) & Counter(wanted)).total()
    return 2 * common / (len(words) + len(wanted)) if common else float(words == wanted)


def _words(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def rouge_l(answer: str, target: str) -> float:
    """Return ROUGE-L, the F-measure of the longest common subsequence of words (ACL W04-1013)."""
    score: float = _rouge().score(target, answer)["rougeL"].fmeasure
    return score


@cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge_l", "rouge-score") from error
    return RougeScorer(["rougeL"])


def chrf(answer: str, target: str) -> float:
    """Return chrF2, the F-score of n-grams of characters (ACL W15-3049), between 0 and 1."""
    try:
        from sacrebleu import sentence_chrf
    except ImportError as error:
        raise _missing("chrf", "sacrebleu") from error
    return float(sentence_chrf(answer, [target]).score) / 100


def _missing(metric: str, distribution: str) -> RequestError:
    how = how_to_install("lmflow-benchmarks", "text-metrics")
    return RequestError(f"the metric {metric} needs {distribution}: {how}")


LIKENESS: dict[str, Callable[[str, str], float]] = {"f1": f1, "rouge_l": rouge_l, "chrf": chrf}


def answer_score(metric: str, answer: str | None, targets: Sequence[str], steps: Sequence[str]) -> float:
    """Return how good an answer is by a metric, compared with the right one that it is most like.

    Args:
        metric: ``exact_match`` or one of :data:`LIKENESS`.
        answer: what was found; None is worth nothing.
        targets: the right answers.
        steps: what does not count when texts must be the same.
    """
    if answer is None:
        return 0.0
    if metric == "exact_match":
        return float(normalized(answer, steps) in {normalized(target, steps) for target in targets})
    return max(LIKENESS[metric](answer, target) for target in targets)
