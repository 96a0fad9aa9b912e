"""The rewards ``exact`` and ``regex``: an answer that is what it must be."""

from __future__ import annotations

import re

from lmflow_core.api import Prompt, RequestError
from lmflow_reward.rewards.base import Verifier, row_field
from lmflow_reward.rewards.options import ExactOptions, RegexOptions


class Exact(Verifier):
    """1 for an answer that is one of the right ones, but for white space around and runs of it within; else 0."""

    def __init__(self, options: ExactOptions | None = None) -> None:
        self._options = options or ExactOptions()

    def check(self, prompt: Prompt) -> None:
        """Check that the row holds a right answer.

        Raises:
            ValueError: it holds none, or something else than texts and numbers.
        """
        self._right(prompt)

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Compare an answer with the right ones of its row."""
        return float(self._plain(answer) in self._right(prompt))

    def _right(self, prompt: Prompt) -> set[str]:
        name = self._options.exact_field
        value = row_field(prompt, name, "--exact-field")
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(one, str | int | float) for one in listed):
            raise ValueError(f"the field {name!r} must hold the right answer, or a list of them, not {value!r}")
        return {self._plain(str(one)) for one in listed}

    def _plain(self, text: str) -> str:
        plain = " ".join(text.split())
        return plain.casefold() if self._options.exact_ignore_case else plain


class Regex(Verifier):
    """1 for an answer that a regular expression matches, else 0; ``.`` matches line ends too."""

    def __init__(self, options: RegexOptions | None = None) -> None:
        """Take a pattern.

        Raises:
            RequestError: none is given.
        """
        if options is None or options.regex_pattern is None:
            raise RequestError("--reward regex needs --regex-pattern, the regular expression that an answer must match")
        pattern = re.compile(options.regex_pattern, re.DOTALL)
        self._match = pattern.search if options.regex_search else pattern.fullmatch

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Match an answer, without white space around it."""
        return float(self._match(answer.strip()) is not None)
