"""Segments to runs: what is encoded at once.

A run ends at a control token and where trainability changes: the second keeps a prompt's tokens the same in training
and when an answer is asked for, whatever the first letters of the answer are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from lmflow_core.contracts.examples import ImagePart, Segment
from lmflow_core.contracts.tokens import MediaTokenizer, Tokenizer
from lmflow_core.data.rendering import OpeningSegment


class KnownIds(NamedTuple):
    """Ids that no text is encoded for: a control token's, or those that stand for an image with this digest."""

    ids: Sequence[int]
    image: ImagePart | None = None
    digest: str = ""


@dataclass(slots=True)
class Run:
    """Text to encode at once, or ids that are known.

    Where ``continues`` is set, the text follows another without a gap.
    """

    text: str
    trainable: bool
    continues: bool = False
    known: KnownIds | None = None


Runs = list[Run]


class RunSplitter:
    """Splits rendered sequences for one tokenizer, and asks the media tokenizer for the ids of images."""

    def __init__(self, tokenizer: Tokenizer, media: MediaTokenizer | None) -> None:
        """Split for these; ``media`` is None for a model that does not see."""
        self._tokenizer = tokenizer
        self._media = media
        # A template says the same few texts again and again.
        self._cut = lru_cache(maxsize=1024)(self._cut_apart)

    def split(self, segments: Sequence[Segment]) -> Runs:
        """Return the runs of a sequence.

        Raises:
            ValueError: an image cannot be read, or the model takes none.
        """
        return [*self._runs(segments)]

    def _runs(self, segments: Sequence[Segment]) -> Iterator[Run]:
        # What one piece leaves to the next: the text that is still growing; whether the text behind it would go on
        # without a gap, so that the tokenizer must not make up a space; and whether the control token before it takes
        # the white space that follows, which may come in several pieces.
        pending: Run | None = None
        continues = swallowing = False
        swallowers = self._tokenizer.swallows_space
        # Behind the token that opens a plain text, the text begins as it would alone, whatever the tokenizer does else.
        spaces = self._tokenizer.spaces_after_control or any(isinstance(s, OpeningSegment) for s in segments)
        for piece, trainable, known in self._pieces(segments):
            takes_before, takes_behind = (False, False) if known is None else swallowers.get(piece, (False, False))
            if pending and takes_before:
                pending.text = pending.text.rstrip()
            if pending and (known is not None or trainable != pending.trainable):
                yield pending
                pending, continues = None, True
            if known is not None:
                yield Run(piece, trainable, known=known)
                continues, swallowing = not spaces, takes_behind
                continue
            if swallowing:
                piece = piece.lstrip()
                swallowing = not piece
            if pending:
                pending.text += piece
            elif piece:
                pending = Run(piece, trainable, continues=continues)
        if pending:
            yield pending

    def _pieces(self, segments: Iterable[Segment]) -> Iterator[tuple[str, bool, KnownIds | None]]:
        for segment in segments:
            if segment.control:
                for piece, known in self._cut(segment.text):
                    yield piece, segment.trainable, known
            elif segment.image is not None:
                yield from self._around(self._of_image(segment.image))
            else:
                yield segment.text, segment.trainable, None

    def _around(self, image: KnownIds) -> Iterator[tuple[str, bool, KnownIds | None]]:
        """Yield an image with the text that belongs to it, which may become one token with the text beside it."""
        before, behind = ("", "") if self._media is None else self._media.around
        for text, known in ((before, None), ("", image), (behind, None)):
            if text or known is not None:
                yield text, False, known

    def _of_image(self, image: ImagePart) -> KnownIds:
        if self._media is None:
            raise ValueError("the model takes no images: choose one that does, or leave them out")
        ids, digest = self._media.tokenize(image)
        return KnownIds(ids, image, digest)

    def _cut_apart(self, text: str) -> tuple[tuple[str, KnownIds | None], ...]:
        """Return the control tokens of a template's text, with their ids, and what stands between them."""
        return tuple((piece, self._controls.get(piece)) for piece in self._control_pattern.split(text) if piece)

    @cached_property
    def _controls(self) -> dict[str, KnownIds]:
        return {text: KnownIds((number,)) for text, number in self._tokenizer.control_tokens.items()}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._controls, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else r"(?!)")
