"""An answer of a batch, and what the next pass reads of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from lmflow_core.api import Decoder, DecodeStep, DecodingRequest
from lmflow_transformers.batching.prefixes import Ids
from lmflow_transformers.batching.shared_pass import Part
from lmflow_transformers.batching.texts import CacheLayout, TextCache
from lmflow_transformers.images import NoImages, ShownImages
from lmflow_transformers.models import CausalModel


class Chooser(Protocol):
    """Chooses the tokens of one answer; see :class:`~lmflow_transformers.batching.choosing.TokenChooser`."""

    def draft(self, ids: Sequence[int], most: int, beside: int) -> Sequence[int]:
        """Return up to ``most`` tokens that may follow, for the next pass to check."""

    def choose(self, ids: Sequence[int], draft: Sequence[int], logits: torch.Tensor) -> DecodeStep:
        """Return the next tokens: those of the draft that hold, and one more; a stop comes last."""


class SharedBatchDecoder(Decoder, Protocol):
    """A decoder whose answers can share passes of a model."""

    def layout(self, model: CausalModel) -> CacheLayout:
        """Return how the texts of its answers are kept."""

    def chooser(self, model: CausalModel, request: DecodingRequest) -> Chooser:
        """Return what chooses the tokens of an answer."""


@dataclass(eq=False)
class BatchAnswer:
    """A request of a batch, and how far it got. While its prompt is read, it is a :class:`Reading`.

    Attributes:
        ticket: of the request.
        request: what is asked.
        chooser: of its tokens.
        ids: the prompt and the answer so far.
        prompt: the first as an array, in which tokens of an image are told from those of any other.
        layout: how its text is kept.
        cache: of its text, once it runs.
        passed_over: passes since a part of its prompt was read.
        dropped: how many dropped tokens were told.
        shown: the images of its prompt, once it runs.
    """

    ticket: int
    request: DecodingRequest
    chooser: Chooser
    layout: CacheLayout
    ids: list[int]
    prompt: Ids
    cache: TextCache | None = None
    passed_over: int = 0
    dropped: int = 0
    shown: ShownImages | NoImages = field(default_factory=NoImages)

    @property
    def text(self) -> Ids:
        """The prompt and the answer so far, as :attr:`prompt` has them."""
        return np.concatenate((self.prompt, np.array(self.ids[len(self.prompt) :], dtype=np.int64)))

    @property
    def must_be_whole(self) -> bool:
        """Whether the next pass must read the prompt to its end, as there are images in what was not read."""
        return self.seen < self.shown.end

    @property
    def capacity(self) -> int:
        """How many tokens its text may have."""
        return len(self.request.prompt) + self.request.max_new_tokens

    @property
    def tokens(self) -> int:
        """How many tokens it takes of the cache at most."""
        return self.layout.tokens(self.capacity)

    @property
    def opened(self) -> TextCache:
        """The cache of a text that runs."""
        assert self.cache is not None, "only answers that run are read"
        return self.cache

    @property
    def seen(self) -> int:
        """How many of its tokens were read."""
        return self.opened.seen

    @property
    def unread(self) -> int:
        """How many of its tokens were not."""
        return len(self.ids) - self.opened.seen

    @property
    def written(self) -> int:
        """How many tokens of the answer there are."""
        return len(self.ids) - len(self.request.prompt)

    def room(self) -> int:
        """Return how many tokens the next pass may read."""
        return self.opened.room()

    @property
    def finished(self) -> bool:
        """Whether the answer has all its tokens."""
        return self.written >= self.request.max_new_tokens or self.ids[-1] in self.request.stop_ids


@dataclass(frozen=True)
class Turn:
    """What a pass reads of an answer; the last tokens of the part are its draft."""

    answer: BatchAnswer
    draft: Sequence[int]
    part: Part


def next_turn(answer: BatchAnswer, count: int, *, beside: int) -> Turn:
    """Return the next ``count`` tokens of an answer, with a draft where it is being written."""
    ids = answer.ids[answer.seen : answer.seen + count]
    most = answer.request.max_new_tokens - answer.written - 1
    draft = answer.chooser.draft(answer.ids, most, beside) if answer.written and most else ()
    outputs = len(draft) + 1 if answer.unread == count else 0
    shown = answer.shown.inputs(answer.seen, len(ids) + len(draft))
    return Turn(answer, draft, Part(answer.opened, [*ids, *draft], outputs, shown))


def whole_prompts(reading: Sequence[BatchAnswer], counts: Sequence[int], showing: bool) -> list[int]:
    """Return how many tokens of prompts a pass reads, so that it reads images of one prompt at most, and these whole.

    Args:
        reading: answers whose prompts are read.
        counts: how many tokens of each would be read if none had images.
        showing: whether the pass can read no image any more.
    """
    whole: list[int] = []
    for answer, count in zip(reading, counts, strict=True):
        if answer.must_be_whole and count:
            answer.passed_over += showing
            count = 0 if showing else answer.unread
            showing = True
        whole.append(count)
    return whole


def marked(request: DecodingRequest) -> Ids:
    """Return a prompt in which each token of an image is a number below 0 that tells the image."""
    ids = np.array(request.prompt, dtype=np.int64)
    for media in request.media:
        digest = hashlib.blake2b(media.digest.encode(), digest_size=8).digest()
        ids[media.start : media.start + media.tokens] = -1 - (int.from_bytes(digest) >> 2)
    return ids
