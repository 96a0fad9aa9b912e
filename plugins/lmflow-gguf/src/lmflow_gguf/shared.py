"""Texts that share a context of llama.cpp, and the beginnings that they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmflow_core.api import SHORTEST_BEGINNING, common_beginning
from lmflow_gguf.contexts import Context, Part
from lmflow_gguf.model import LlamaCppModel
from lmflow_gguf.runtime import free_memory

# The cache may take this share of the memory that is free when a batch is opened.
_SHARE_OF_FREE_MEMORY = 0.25
_UNKNOWN_CONTEXT = 4096
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Prefix:
    """The first ``length`` tokens of a text."""

    text: int
    length: int


def as_array(ids: Sequence[int]) -> Ids:
    """Return token ids as an array."""
    return np.array(ids, dtype=np.int32)


class SharedContext:
    """Texts of a model in one context, which is made larger as they need it.

    Args:
        model: loaded.
        most: tokens of all texts together, at most.
        texts: how many there are at a time, at most.
        threads: on the processor; every one when left out.
    """

    def __init__(self, model: LlamaCppModel, most: int, texts: int, threads: int | None) -> None:
        self._model = model
        self._most = most
        self._texts = texts
        self._threads = threads
        self._free = [*reversed(range(texts))]
        self._open: list[int] = []
        self.context = self._made(1)

    def _made(self, length: int) -> Context:
        model = self._model
        return Context(model.weights, length, texts=self._texts, threads=self._threads, adapter=model.adapter)

    def open(self, prefix: Prefix | None = None) -> int:
        """Return the number of a new text, empty or with the first tokens of another."""
        text = self._free.pop()
        self._open.append(text)
        if prefix is not None:
            self.context.copy(prefix.text, text, prefix.length)
        return text

    def close(self, text: int) -> None:
        """Forget a text."""
        self.context.forget(text)
        self._open.remove(text)
        self._free.append(text)

    def make_room(self, tokens: int) -> None:
        """Make sure that there is room for so many tokens of all texts.

        Raises:
            ModelError: there is not enough memory.
        """
        if tokens <= self.context.length:
            return
        larger = self._made(min(self._most, max(tokens, 2 * self.context.length)))
        for text in self._open:
            self.context.move_to(larger, text)
        self.context = larger

    def read(self, parts: Sequence[Part]) -> None:
        """Evaluate parts of texts in one pass; raises as ``Context.read`` does."""
        self.context.read(parts)

    def longest_prefix(self, ids: Ids, texts: Iterable[tuple[int, Ids]]) -> Prefix | None:
        """Return the longest beginning of some ids, without the last, that one of some texts has read.

        Args:
            ids: token ids.
            texts: numbers of texts, with the ids that were read of them.
        """
        best: Prefix | None = None
        for text, read in texts:
            length = common_beginning(ids[:-1], read)
            if (
                length >= SHORTEST_BEGINNING
                and (best is None or length > best.length)
                and self.context.holds(text, length)
            ):
                best = Prefix(text, length)
        return best


class FinishedTexts:
    """The last texts that ended, the latest last: others may begin like them.

    Args:
        context: that they are in.
        most: how many are kept.
    """

    def __init__(self, context: SharedContext, most: int) -> None:
        self._context = context
        self._most = most
        self._kept: list[tuple[int, Ids]] = []

    @property
    def tokens(self) -> int:
        """How many tokens are in them."""
        return sum(len(ids) for _, ids in self._kept)

    def keep(self, text: int, ids: Ids) -> None:
        """Keep a text that ended, of which ``ids`` were read, in the place of those it goes on from."""
        if len(ids) < SHORTEST_BEGINNING:
            self._context.close(text)
            return
        for place, (other, its) in reversed([*enumerate(self._kept)]):
            if common_beginning(its, ids) == len(its):
                del self._kept[place]
                self._context.close(other)
        self._kept.append((text, ids))
        while len(self._kept) > self._most:
            self.forget_oldest()

    def longest(self, ids: Ids) -> Prefix | None:
        """Return the longest beginning that some ids share with one of them; it counts as used."""
        best = self._context.longest_prefix(ids, self._kept)
        if best is not None:
            place = next(at for at, (text, _) in enumerate(self._kept) if text == best.text)
            self._kept.append(self._kept.pop(place))
        return best

    def forget_oldest(self) -> bool:
        """Forget the text that was of no use for the longest time; False when there is none."""
        if not self._kept:
            return False
        self._context.close(self._kept.pop(0)[0])
        return True


def can_share(model: LlamaCppModel) -> bool:
    """Whether texts of a loaded model can share a context.

    They cannot where a state replaces what was read, as in recurrent layers, and where positions follow the size of the
    context.
    """
    return model.weights.forgets and not model.follows_context


def affordable_tokens(model: LlamaCppModel, answers: int) -> int:
    """Return for how many tokens there is memory, at most as many as the answers can have."""
    wanted = answers * (model.context_length or _UNKNOWN_CONTEXT)
    free = free_memory()
    if free is None:
        return wanted
    return max(1, min(wanted, int(_SHARE_OF_FREE_MEMORY * free) // model.bytes_per_token))
