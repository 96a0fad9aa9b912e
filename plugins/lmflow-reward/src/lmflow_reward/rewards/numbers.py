"""The reward ``arithmetic``: an answer that comes to the right number, in GSM8K's form (arXiv:2110.14168)."""

from __future__ import annotations

import re

from lmflow_core.api import Prompt
from lmflow_reward.rewards.base import Verifier, row_field
from lmflow_reward.rewards.options import ArithmeticOptions

_MARK = "####"
# A sign belongs to a number only where no digit or letter stands before it, as one does in 3-2.
_NUMBER = re.compile(r"(?<![\w.])[-+−]?\$?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+")


class Arithmetic(Verifier):
    """1 where the number of an answer is that of its row, else 0.

    It is the number behind ``####``, or the last one where there is no such mark. Thousands may be parted by commas.
    """

    def __init__(self, options: ArithmeticOptions | None = None) -> None:
        self._options = options or ArithmeticOptions()

    def check(self, prompt: Prompt) -> None:
        """Check that the row holds a number.

        Raises:
            ValueError: it does not.
        """
        self._right(prompt)

    def score_one(self, prompt: Prompt, answer: str) -> float:
        """Compare the number of an answer with that of its row."""
        found = number_of(answer)
        return float(found is not None and abs(found - self._right(prompt)) <= self._options.arithmetic_tolerance)

    def _right(self, prompt: Prompt) -> float:
        name = self._options.arithmetic_field
        value = row_field(prompt, name, "--arithmetic-field")
        right = number_of(value) if isinstance(value, str) else value
        if isinstance(right, bool) or not isinstance(right, int | float):
            raise ValueError(f"the field {name!r} holds no number: {str(value)[:80]!r}")
        return float(right)


def number_of(text: str) -> float | None:
    """Return the number that a text comes to, or None where it has none."""
    _, mark, behind = text.rpartition(_MARK)
    found = _NUMBER.findall(behind if mark else text)
    if not found:
        return None
    written = found[0] if mark else found[-1]
    return float(written.replace(",", "").replace("$", "").replace("−", "-"))
