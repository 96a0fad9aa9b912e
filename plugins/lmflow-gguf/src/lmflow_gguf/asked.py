"""What is asked of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lmflow_core.api import DecodingRequest, RequestError
from lmflow_gguf.contexts import Part
from lmflow_gguf.model import LlamaCppModel
from lmflow_gguf.sampling import Sampler
from lmflow_gguf.shared import Ids, as_array


class SharedDecoder(Protocol):
    """What a batch needs of the decoder of an answer."""

    def sampler(self, model: LlamaCppModel, request: DecodingRequest) -> Sampler:
        """Return what samples the tokens of an answer."""

    def draft(self, ids: Sequence[int], most: int, beside: int) -> Sequence[int]:
        """Return up to ``most`` tokens that may follow, for the next pass to check."""


@dataclass(eq=False)
class Answer:
    """A request of a batch.

    Attributes:
        decoder: samples it.
        ids: the prompt and the answer so far; ``prompt`` is the first as an array.
        text: its number in the context, and ``sampler`` what chooses its tokens, once it runs.
        seen: how many of its tokens were read.
        passed_over: passes since a part of its prompt was read.
    """

    ticket: int
    request: DecodingRequest
    decoder: SharedDecoder
    ids: list[int]
    prompt: Ids
    text: int = -1
    sampler: Sampler | None = None
    seen: int = 0
    passed_over: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens its text has at most."""
        return len(self.prompt) + self.request.max_new_tokens

    @property
    def unread(self) -> int:
        """How many of its tokens are left to read."""
        return len(self.ids) - self.seen

    @property
    def written(self) -> int:
        """How many tokens of the answer there are."""
        return len(self.ids) - len(self.prompt)

    @property
    def read(self) -> Ids:
        """The tokens that were read."""
        return as_array(self.ids[: self.seen])


@dataclass(frozen=True)
class Planned:
    """What a pass reads of an answer: a part that ends with a draft."""

    answer: Answer
    part: Part
    draft: Sequence[int]


def check_prompt(request: DecodingRequest) -> None:
    """Check that there is a token for the model to begin with.

    Raises:
        RequestError: there is none.
    """
    if not request.prompt:
        raise RequestError("the prompt is empty: an answer needs at least one token to begin with")
