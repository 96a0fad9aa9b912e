"""What the page does, without the page: a model that may be changed, and a conversation for each visitor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from lmflow_core.api import AnswerStream, ChatModel, ChatSession, ImagePart, ModelOpener, OptionField, messages_row
from lmflow_webui.pictures import check_room

_MOST_VISITORS = 1000
_ENDS = {"stop": "complete", "length": "cut at the longest answer", "cancelled": "stopped"}


@dataclass(frozen=True)
class View:
    """What a visitor sees: the turns as (role, text, or parts that may be images), and a line about the last answer."""

    turns: tuple[tuple[str, str | tuple[str | ImagePart, ...]], ...]
    status: str


class VisitorConversation:
    """The conversation of one visitor."""

    def __init__(self, model: ChatModel, computing: Executor) -> None:
        self._session = ChatSession(model)
        self._computing = computing
        self._answer: AnswerStream | None = None

    def ask(
        self, text: str, model: ChatModel, parameters: Mapping[str, object], images: Sequence[str] = ()
    ) -> Iterator[View]:
        """Ask, with images by their addresses, and yield what is to be seen, piece by piece.

        Raises:
            LmflowError: a parameter is wrong, the message does not fit the model's context, or an image cannot be taken
                or is one too many.
        """
        shown = [part for message in self._session.messages for part in message.parts if isinstance(part, ImagePart)]
        check_room(len(shown), images)
        self._session.model = model.changed(**parameters)
        self._session.images = [*images]
        yield from self._written(self._session.ask(text))

    def ask_again(self, model: ChatModel, parameters: Mapping[str, object]) -> Iterator[View]:
        """Answer the last message anew; yields and raises as :meth:`ask` does."""
        self._session.model = model.changed(**parameters)
        yield from self._written(self._session.ask_again())

    def _written(self, answer: AnswerStream) -> Iterator[View]:
        self._answer = answer
        asked = self._turns()
        began = time.perf_counter()
        try:
            pieces = iter(answer)
            while self._computing.submit(next, pieces, None).result() is not None:
                status = f"{len(answer.sampled)} tokens …"
                yield View((*asked, ("assistant", answer.text)), status)
        finally:
            # A visitor who leaves closes this generator between two pieces; what was written is kept.
            self._answer = None
            self._session.keep(answer)
        yield View(self._turns(), self._summary(answer, time.perf_counter() - began))

    def _summary(self, answer: AnswerStream, seconds: float) -> str:
        told = [f"{answer.tokens} tokens, {answer.tokens / seconds:.1f} tokens/s"]
        if answer.drafted:
            told.append(f"{answer.accepted / answer.drafted:.0%} of the drafts accepted")
        told.append(_ENDS[answer.finish_reason])
        if not answer.text.strip():
            told.append("the model gave no answer")
        if self._session.dropped:
            told.append(f"{self._session.dropped} oldest turns left out: the model's context is full")
        return " · ".join(told)

    def stop(self) -> None:
        """End the answer that is being written, before its next token."""
        if self._answer is not None:
            self._answer.cancel()

    def reset(self, model: ChatModel) -> View:
        """Forget the conversation."""
        self.stop()
        self._session = ChatSession(model)
        return View(self._turns(), "")

    def history(self) -> str:
        """Return the conversation as a row of JSONL, which ``lmflow finetune`` can train on."""
        return messages_row(self._session.messages)

    def _turns(self) -> tuple[tuple[str, str | tuple[str | ImagePart, ...]], ...]:
        return tuple((message.role, message.content) for message in self._session.messages)


class WebChat:
    """The model that all visitors talk with, and their conversations."""

    def __init__(self, open_model: ModelOpener) -> None:
        self._open_model = open_model
        # OpenMP keeps the workers of every thread that computed; where there are several, answers take twice as long.
        self._computing = ThreadPoolExecutor(1, "model")
        self.model = self._opened()
        self.chosen = {"model": self.model.name, "decoder": self.model.decoder_name}
        self._conversations: dict[str, VisitorConversation] = {}

    @property
    def sees(self) -> bool:
        """Whether the model takes images."""
        return self.model.model.media is not None

    def choices(self, kind: str) -> list[str]:
        """Return the names to choose from: those of the plugins, and the one in use."""
        return list(dict.fromkeys([self.chosen[kind], *self._open_model.names(kind)]))

    def choose(self, **names: str) -> None:
        """Use another ``model`` or ``decoder``, for every visitor.

        Raises:
            LmflowError: it cannot be used; the one in use stays.
        """
        wanted = self.chosen | names
        if wanted != self.chosen:
            self.model = self._opened(**wanted)
            self.chosen = wanted

    def _opened(self, **names: str) -> ChatModel:
        return self._computing.submit(self._open_model, **names).result()

    def parameters(self) -> list[tuple[OptionField, object]]:
        """Return what an answer may be sampled with, and the values of the command line."""
        return [(field, value) for field, value in self.model.parameters() if not field.many]

    def conversation(self, visitor: str) -> VisitorConversation:
        """Return the conversation of a visitor; of too many visitors, the one that came first is forgotten."""
        if visitor not in self._conversations:
            self._conversations[visitor] = VisitorConversation(self.model, self._computing)
            while len(self._conversations) > _MOST_VISITORS:
                self.leave(next(iter(self._conversations)))
        return self._conversations[visitor]

    def leave(self, visitor: str) -> None:
        """Stop and forget the conversation of a visitor."""
        if conversation := self._conversations.pop(visitor, None):
            conversation.stop()
