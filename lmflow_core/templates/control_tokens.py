"""Plain text that looks like a control token: it is cut into pieces that no tokenizer takes for one."""

from __future__ import annotations

import re
from collections.abc import Collection


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
