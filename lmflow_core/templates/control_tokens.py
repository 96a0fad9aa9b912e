"""Plain text that looks like a control token: it is cut into pieces that no tokenizer takes for one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, islice

from lmflow_core.errors import RequestError

# Encodes texts; where a flag is set, the text follows another without a gap.
Encode = Callable[[Sequence[str], Sequence[bool]], list[list[int]]]


class ControlTextError(RequestError):
    """A text with a character that a tokenizer itself makes a control token of."""


class PlainTextEncoder:
    """Encodes texts so that nothing in them becomes a control token; what looks like one becomes its characters.

    Texts are cut where the tokenizer would find a control token, and what they were encoded to is compared with the ids
    of control tokens: tokenizers may change a text before they look (full width, capitals, accents), so that no list of
    texts is whole. A text that gave a control token all the same is cut in halves until none does.
    """

    def __init__(self, encode: Encode, control: Mapping[str, int], unknown: int | None = None) -> None:
        """Encode with a tokenizer.

        Args:
            encode: the tokenizer at work, with as many control tokens switched off as it can.
            control: ids of its control tokens.
            unknown: the id that stands for what the vocabulary does not hold; texts may become it.
        """
        self._encode = encode
        names = [*control, *control]
        encoded = encode(names, [at >= len(control) for at in range(len(names))])
        found = {name for name, ids in zip(names, encoded, strict=True) if control[name] in ids}
        self._breaker = ControlTokenBreaker(found)
        # White space is text, whatever else a tokenizer may take it for.
        self._names = {number: name for name, number in control.items() if name.strip() and number != unknown}
        self._forbidden = frozenset(self._names)

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Return the ids of texts; ``continues`` says of each whether it follows another without a gap.

        Raises:
            ControlTextError: a single character becomes a control token.
        """
        # A piece that follows another one must make up no leading space. All go to the tokenizer at once, as a call for
        # each would be many times slower.
        broken = [self._breaker.pieces(text) for text in texts]
        pieces = [piece for parts in broken for piece in parts]
        goes_on = [flag or at > 0 for parts, flag in zip(broken, continues, strict=True) for at in range(len(parts))]
        found = iter(self._without_control(pieces, goes_on))
        return [next(found) if len(parts) == 1 else _joined(islice(found, len(parts))) for parts in broken]

    def _without_control(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        encoded = self._encode(texts, continues)
        leaking = [at for at, ids in enumerate(encoded) if not self._forbidden.isdisjoint(ids)]
        if leaking:
            halves = [half for at in leaking for half in self._halves(texts[at], encoded[at])]
            found = iter(self._without_control(halves, [flag for at in leaking for flag in (continues[at], True)]))
            for at in leaking:
                encoded[at] = _joined(islice(found, 2))
        return encoded

    def _halves(self, text: str, ids: Sequence[int]) -> tuple[str, str]:
        middle = len(text) // 2
        if not middle:
            name = next(self._names[number] for number in ids if number in self._names)
            raise ControlTextError(
                f"the text holds the character {text!r} (U+{ord(text):04X}), which the tokenizer of the model takes "
                f"for the control token {name!r}: leave it out"
            )
        return text[:middle], text[middle:]


def _joined(encoded: Iterable[list[int]]) -> list[int]:
    return [*chain.from_iterable(encoded)]


class ControlTokenBreaker:
    """Cuts texts inside every control token of some, so that each piece becomes characters and never the token.

    What a user types or data holds must not end a turn or begin another one. Tokenizers have a switch for that, but it
    does not reach every control token: some are pieces of the vocabulary itself, or were added without being marked as
    special. A cut behind the first character of such a token's text is reliable whatever the tokenizer.

    Args:
        tokens: texts of the control tokens that the tokenizer would find in plain text, none empty.
    """

    def __init__(self, tokens: Collection[str]) -> None:
        self._begins = _where_one_begins(tokens) if tokens else None

    def pieces(self, text: str) -> list[str]:
        """Return the pieces of a text, in order; the text itself where it has no such token. They join to the text."""
        if self._begins is None:
            return [text]
        cuts = [match.start() + 1 for match in self._begins.finditer(text)]
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _where_one_begins(tokens: Collection[str]) -> re.Pattern[str]:
    """Return what matches, without taking any text, where one of the tokens begins.

    Looking ahead takes nothing, so that a token which begins inside another one is found too. Few characters begin any
    token, so these are asked for first: a text is searched much faster.
    """
    firsts = "".join(sorted({re.escape(token[0]) for token in tokens}))
    return re.compile(f"(?=[{firsts}])(?={'|'.join(map(re.escape, tokens))})")
