"""A conversation with a model: its turns, what of them fits the model's context, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmflow_core.contracts.examples import Message
from lmflow_core.contracts.generation import AnswerStream, TalkingModel
from lmflow_core.errors import RequestError
from lmflow_core.files.output import write_text


class Dialogue:
    """A conversation that goes on: ask, iterate over the answer, keep it.

    Attributes:
        model: what answers; it may be changed between turns.
        messages: the whole conversation, the system prompt included.
        dropped: how many of the oldest turns the last prompt had to leave out. A turn is a user's message with
            everything up to the next one; the system prompt always stays.
    """

    def __init__(self, model: TalkingModel) -> None:
        self.model = model
        self.messages: list[Message] = model.opening()
        self.dropped = 0
        self._before: list[Message] = self.messages
        self._attempts = 0

    def ask(self, text: str) -> AnswerStream:
        """Return the answer to the user's next message; :meth:`keep` it once it is written.

        Raises:
            RequestError: the message alone does not fit the model's context, or the template has no place for it.
        """
        asked = [*self.messages, Message("user", text)]
        answer = self._answer(self.model, asked)
        self._before, self.messages, self._attempts = self.messages, asked, 0
        return answer

    def ask_again(self) -> AnswerStream:
        """Return another answer to the user's last message, drawn with the next seed, in the place of the last one.

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
        self.dropped = 0

    @property
    def system(self) -> str | None:
        """The system prompt."""
        first = self.messages[:1]
        return first[0].content if first and first[0].role == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        turns = [message for message in self.messages if message.role != "system"]
        self.messages = turns if text is None else [Message("system", text), *turns]

    def _answer(self, model: TalkingModel, messages: list[Message]) -> AnswerStream:
        try:
            answer, self.dropped = fitting_answer(model, messages)
        except ValueError as error:
            raise RequestError(f"the template cannot render this conversation: {error}") from error
        return answer


def fitting_answer(model: TalkingModel, messages: Sequence[Message]) -> tuple[AnswerStream, int]:
    """Return the answer to as much of a conversation as fits the context, and how many turns were left out.

    A prompt leaves room for ``max_new_tokens``, at most half of the context: the oldest turns are dropped whole, never
    the system prompt nor the last message. An answer ends where the context does.

    Raises:
        RequestError: what cannot be dropped is too long.
        ValueError: the template has no place for one of the messages.
    """
    starts = _turn_starts(messages)
    if not starts:
        raise RequestError("the conversation has no message of a user")
    for dropped in range(len(starts)):
        kept = [*messages[: starts[0]], *messages[starts[dropped] :]]
        answer = model.answer(kept)
        room = _room(model, answer.prompt_tokens)
        last = dropped == len(starts) - 1
        if room >= _wanted_room(model) or (last and room > 0):
            if room < model.settings.max_new_tokens:
                answer = model.changed(max_new_tokens=room).answer(kept)
            return answer, dropped
    raise RequestError(
        f"the message is too long: with what must stay it makes {answer.prompt_tokens} tokens, "
        f"and the context of the model holds {model.context_length}; shorten it"
    )


def _turn_starts(messages: Sequence[Message]) -> list[int]:
    return [at for at, message in enumerate(messages) if message.role == "user"]


def _room(model: TalkingModel, prompt_tokens: int) -> int:
    """Return how many tokens an answer may have behind a prompt."""
    context = model.context_length
    most = model.settings.max_new_tokens
    return most if context is None else min(most, context - prompt_tokens)


def _wanted_room(model: TalkingModel) -> int:
    context = model.context_length
    most = model.settings.max_new_tokens
    return most if context is None else min(most, context // 2)


def messages_row(messages: Sequence[Message]) -> str:
    """Return a conversation as a line of JSON that ``lmflow finetune`` can train on."""
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def read_messages(value: Any) -> list[Message]:
    """Return the messages of a list like ``[{"role": "user", "content": "…"}, …]``.

    Raises:
        ValueError: it is not such a list; the message names the place.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("'messages' must be a list of messages, and not empty")
    return [_message(turn, number) for number, turn in enumerate(value, 1)]


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        raise ValueError(f"message {number} must have 'role' and 'content' and nothing else")
    role, content = turn["role"], turn["content"]
    if role not in ("user", "assistant", "system") or (role == "system" and number > 1):
        raise ValueError(f"message {number}: the role must be user or assistant (system only first), not {role!r}")
    if not isinstance(content, str):
        raise ValueError(f"message {number}: the content must be text")
    return Message(role, content)


def save_messages(messages: Sequence[Message], file: Path) -> None:
    """Write a conversation to a JSONL file of one row, aside and then in place.

    Raises:
        OutputError: the disk refuses.
        RequestError: there is no answer to save.
    """
    if not any(message.role == "assistant" for message in messages):
        raise RequestError("there is nothing to save yet")
    write_text(file, messages_row(messages))


def load_messages(file: Path) -> list[Message]:
    """Return the conversation in the last row of a file that :func:`save_messages` or training data makes.

    Raises:
        RequestError: the file cannot be read, or its last row is no conversation that ends with an answer.
    """
    try:
        # Not splitlines(), which cuts at separators that JSON leaves inside of a text.
        row = json.loads(file.read_text(encoding="utf-8").rstrip().split("\n")[-1])
        messages = read_messages(row.get("messages") if isinstance(row, dict) else None)
        if messages[-1].role != "assistant":
            raise ValueError("the conversation must end with an answer")
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{file}: the last row is no conversation: {error}") from error
    return messages
