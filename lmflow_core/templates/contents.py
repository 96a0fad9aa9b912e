"""Contents of messages that are made of texts and images."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.examples import Part


def stripped_parts(parts: Sequence[Part]) -> list[Part]:
    """Strip the text of some parts of white space at its two ends, as if no image stood in it.

    Jinja has but the text to strip, so this is what keeps both renderings alike.
    """
    return _stripped_at_end(_stripped_at_start(parts))


def _stripped_at_start(parts: Sequence[Part]) -> list[Part]:
    found = list(parts)
    for at, part in enumerate(found):
        if isinstance(part, str):
            found[at] = left = part.lstrip()
            if left:
                break
    return found


def _stripped_at_end(parts: Sequence[Part]) -> list[Part]:
    found = list(parts)
    for at in reversed(range(len(found))):
        part = found[at]
        if isinstance(part, str):
            found[at] = left = part.rstrip()
            if left:
                break
    return found
