"""How much to draft: more while drafts hold, nothing while they do not pay."""

from __future__ import annotations

_SHORTEST = 2
_MEMORY = 0.75
_CREDIT = 0.5
_SHORTEST_REST, _LONGEST_REST = 4, 64
# What a pass that checks a draft takes beyond a pass over one token, in such passes, whatever the draft's length. It
# waits for the weights either way, unless a processor multiplies them much slower with few vectors than with one.
_SURCHARGE, _SURCHARGE_OF_SLOW_ROWS = 0.1, 0.7
# What one more token takes in a pass, in passes over one token. Of a pass that several answers share, it is a larger
# part of what one of their tokens costs, and a draft must gain so much more.
_TOKEN = 0.025


class Pace:
    """The length of the next draft, from how the ones before fared.

    The length rises by one with a draft that held whole and falls by one with any other. A draft gains the tokens that
    were accepted, and costs what it took to draft and to check it. When the gain, averaged over the last drafts, is
    less than the cost, drafting rests for some passes; if the first draft behind a rest does not pay either, the next
    rest is twice as long.

    Args:
        longest: the most tokens to draft.
        cost: of one drafted token, in passes of the model that checks it.
        quick: whether a pass over a few tokens takes about as long as over one.
    """

    def __init__(self, longest: int, cost: float, quick: bool) -> None:
        self._shortest, self._longest = min(_SHORTEST, longest), longest
        self._cost = cost
        self._surcharge = _SURCHARGE if quick else _SURCHARGE_OF_SLOW_ROWS
        self._length = self._shortest
        self._gain = _CREDIT
        self._rest = _SHORTEST_REST
        self._waiting = 0

    def length(self) -> int:
        """Return how many tokens to draft for the next pass."""
        if self._waiting:
            self._waiting -= 1
            return 0
        return self._length

    def tell(self, drafted: int, accepted: int, beside: int = 1) -> None:
        """Take note of a pass: how much was drafted for it, how much of that was accepted, how many answers shared it.

        A token of a shared pass costs a part of it alone, and drafts are as dear as they were.
        """
        if not drafted:
            return
        change = 1 if accepted == drafted else -1
        self._length = min(max(self._length + change, self._shortest), self._longest)
        tokens_per_pass = beside / (1 + _TOKEN * (beside - 1))
        checking = _TOKEN * drafted if beside > 1 else 0.0
        gain = accepted - tokens_per_pass * (self._surcharge + checking) - self._cost * drafted
        self._gain = _MEMORY * self._gain + (1 - _MEMORY) * gain
        if self._gain >= 0:
            self._rest = _SHORTEST_REST
            return
        # Behind the rest a single draft decides, by what it gains itself.
        self._waiting, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST)
        self._gain = 0.0
