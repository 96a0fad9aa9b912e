"""A conversation with a model that goes on: its turns, and what of them fits the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from lmflow_core.contracts.examples import Message
from lmflow_core.contracts.generation import AnswerStream, ChatModel
from lmflow_core.errors import PromptTooLongError, RequestError
from lmflow_core.generation.context import session_room
from lmflow_core.generation.history import shown


class ChatSession:
    """A conversation that goes on: ask, iterate over the answer, keep it.

    Attributes:
        model: what answers; it may be changed between turns.
        messages: the whole conversation, the system prompt included.
        images: paths or addresses of images that the user's next message shows before its text.
        dropped: how many of the oldest turns the last prompt had to leave out. A turn is a user's message with
            everything up to the next one; the system prompt always stays.
    """

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self.messages: list[Message] = model.opening()
        self.images: list[str] = []
        self.dropped = 0
        self._before: list[Message] = self.messages
        self._attempts = 0

    def ask(self, text: str) -> AnswerStream:
        """Return the answer to the user's next message; :meth:`keep` it once it is written.

        Raises:
            RequestError: the message alone does not fit the model's context, or the template has no place for it, or
                an image cannot be read or taken. The next message then shows none.
        """
        images, self.images = self.images, []
        asked = [*self.messages, shown(text, images)]
        answer = self._answer(self.model, asked)
        self._before, self.messages, self._attempts = self.messages, asked, 0
        return answer

    def ask_again(self) -> AnswerStream:
        """Return another answer to the user's last message, sampled with the next seed, in the place of the last one.

        Raises:
            RequestError: nothing was asked yet.
        """
        starts = _turn_starts(self.messages)
        if not starts:
            raise RequestError("nothing was asked yet")
        asked = self.messages[: starts[-1] + 1]
        seed = (self.model.settings.seed + self._attempts + 1) % 2**32
        answer = self._answer(self.model.changed(seed=seed), asked)
        self._before, self.messages = self.messages, asked
        self._attempts += 1
        return answer

    def keep(self, answer: AnswerStream) -> None:
        """Put a written answer into the conversation, which is as it was before where none came."""
        if answer.text.strip():
            self.messages = [*self.messages, Message("assistant", answer.text)]
        else:
            self.messages = self._before

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = [message for message in self.messages if message.role == "system"]
        self.images = []
        self.dropped = 0

    @property
    def system(self) -> str | None:
        """The system prompt."""
        first = self.messages[:1]
        return first[0].text if first and first[0].role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        turns = [message for message in self.messages if message.role != "system"]
        self.messages = turns if text is None else [Message("system", text), *turns]

    def _answer(self, model: ChatModel, messages: list[Message]) -> AnswerStream:
        try:
            answer, self.dropped = fitting_answer(model, messages)
        except ValueError as error:
            raise RequestError(f"this conversation cannot be answered: {error}") from error
        return answer


def fitting_answer(model: ChatModel, messages: Sequence[Message]) -> tuple[AnswerStream, int]:
    """Return the answer to as much of a conversation as fits the context, and how many turns were left out.

    The oldest turns are dropped whole, never the system prompt nor the last message, until there is room for
    ``max_new_tokens`` or for half of the context, whichever is less. What cannot be dropped needs room for one token.

    Raises:
        RequestError: what cannot be dropped is too long, or nobody asked anything.
        ValueError: the template has no place for one of the messages.
    """
    starts = _turn_starts(messages)
    if not starts:
        raise RequestError("the conversation has no message of a user")
    room = session_room(model.context_length, model.settings.max_new_tokens)
    for dropped in range(len(starts) - 1):
        answer = _answer_if_it_fits(model, _without_turns(messages, starts, dropped))
        if answer is not None and answer.max_new_tokens >= room:
            return answer, dropped
    return _answer_to_the_last(model, _without_turns(messages, starts, len(starts) - 1)), len(starts) - 1


def _answer_to_the_last(model: ChatModel, messages: Sequence[Message]) -> AnswerStream:
    try:
        return model.answer(messages)
    except PromptTooLongError as error:
        raise RequestError(
            f"the message is too long: with what must stay it makes {error.prompt_tokens} tokens, "
            f"and the context of the model holds {error.context}; shorten it"
        ) from error


def _answer_if_it_fits(model: ChatModel, messages: Sequence[Message]) -> AnswerStream | None:
    try:
        return model.answer(messages)
    except PromptTooLongError:
        return None


def _without_turns(messages: Sequence[Message], starts: Sequence[int], dropped: int) -> list[Message]:
    """Return a conversation without its oldest turns; what stands before the first of them stays."""
    return [*messages[: starts[0]], *messages[starts[dropped] :]]


def _turn_starts(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message.role == "user"]
