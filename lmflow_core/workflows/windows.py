"""Long documents in windows: every token scored once, with as much before it as the window holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lmflow_core.contracts.tokens import IGNORE, EncodedSequence
from lmflow_core.errors import DataError


def windows(documents: Iterable[EncodedSequence], context: int, stride: int) -> Iterator[EncodedSequence]:
    """Yield the windows of some documents, with labels on the tokens that are new in each.

    The first window of a document scores all its labelled tokens; each later one moves on by ``stride`` tokens and
    scores those. A scored token of a later window has at least ``context - stride`` tokens before it. A shorter last
    window reaches back to ``context`` tokens as well.

    Args:
        documents: encoded documents of any length.
        context: tokens of a window.
        stride: tokens between windows, fewer than ``context``.

    Raises:
        DataError: a document holds images, which a window could cut.
    """
    for document in documents:
        if document.media:
            raise DataError("data with images cannot be scored in windows: leave out --context")
        length = len(document.input_ids)
        scored = 0
        while scored < length:
            end = min(length, scored + stride if scored else context)
            start = max(0, end - context)
            labels = [*([IGNORE] * (scored - start)), *document.labels[scored:end]]
            if any(label != IGNORE for label in labels[1:]):
                yield EncodedSequence(document.input_ids[start:end], labels)
            scored = end
