"""Contents of messages that are made of texts and images."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.examples import ImagePart, Part


def stripped_parts(parts: Sequence[Part]) -> list[Part]:
    """Strip some parts of white space at their two ends, up to the first text or image there.

    Jinja strips a text in which something stands for each image, so this is what keeps both renderings alike.
    """
    return _stripped_at_end(_stripped_at_start(parts))


def _stripped_at_start(parts: Sequence[Part]) -> list[Part]:
    found = list(parts)
    for at, part in enumerate(found):
        if isinstance(part, ImagePart):
            break
        found[at] = left = part.lstrip()
        if left:
            break
    return found


def _stripped_at_end(parts: Sequence[Part]) -> list[Part]:
    found = list(parts)
    for at in reversed(range(len(found))):
        part = found[at]
        if isinstance(part, ImagePart):
            break
        found[at] = left = part.rstrip()
        if left:
            break
    return found
