"""How much to draft: more while drafts hold, nothing while they do not pay."""

from __future__ import annotations

_FIRST = 3
_MEMORY = 0.75
_SHORTEST_REST, _LONGEST_REST = 8, 64
# A pass over several tokens takes somewhat longer than one over a single token.
_CHECKING = 0.1


class Pace:
    """The length of the next draft, from how the ones before fared.

    The length rises by one with a draft that held whole and falls by one with any other. When the share of accepted
    tokens, averaged over the last drafts, falls below the cost of a drafted token, drafting rests for some passes; if
    the first draft behind a rest fails too, the next rest is twice as long.
    """

    def __init__(self, longest: int, cost: float) -> None:
        self._longest = longest
        self._least = min(cost + _CHECKING, 0.95)
        self._length = min(_FIRST, longest)
        self._share = 1.0
        self._rest = _SHORTEST_REST
        self._waiting = 0

    def length(self) -> int:
        """Return how many tokens to draft for the next pass."""
        if self._waiting:
            self._waiting -= 1
            return 0
        return self._length

    def tell(self, drafted: int, accepted: int) -> None:
        """Take note of a pass: how much was drafted for it, and how much of that was accepted."""
        if not drafted:
            return
        held = accepted == drafted
        self._length = min(self._length + 1, self._longest) if held else max(self._length - 1, 1)
        self._share = _MEMORY * self._share + (1 - _MEMORY) * accepted / drafted
        if self._share >= self._least:
            self._rest = _SHORTEST_REST
            return
        # Behind the rest a single draft decides: as it fares, the share rises above or stays below what pays.
        self._waiting, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST)
        self._share = self._least
