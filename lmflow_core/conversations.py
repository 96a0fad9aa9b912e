"""What a row of data means (an example) and what a template makes of it (segments)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant makes: a tool's name and its arguments as JSON values by name."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: one of :data:`ROLES`; ``tool`` gives the result of a call.
        content: the text of the turn; it may be empty in a turn that calls tools.
        reasoning: what the assistant thought before its answer, where a template has a place for it.
        tool_calls: the calls the assistant makes in this turn.
        train: whether an assistant's turn is trained on; None leaves it to the policy of the run.
    """

    role: str
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    train: bool | None = None


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered example.

    ``control`` text comes from a template and may hold control tokens; other text comes from data or from a
    user and never becomes one. ``trainable`` text carries labels.
    """

    text: str
    trainable: bool = False
    control: bool = False


@dataclass(frozen=True)
class Text:
    """Plain text; all of it is trained on."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Prompted:
    """A prompt and its completion, used as they are, without a template; only the completion is trained on."""

    kind: ClassVar[str] = "prompted"
    prompt: str
    completion: str


@dataclass(frozen=True)
class Conversation:
    """Messages to be rendered by a template; the assistant's turns are trained on.

    ``tools`` are the tools the assistant may call, each a JSON schema in OpenAI's form
    (``{"type": "function", "function": {"name", "description", "parameters"}}``).
    """

    kind: ClassVar[str] = "conversation"
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


Example = Text | Prompted | Conversation


def check_turns(messages: Sequence[Message]) -> None:
    """Check the order of a conversation: an optional system message, then user and assistant in turn.

    Raises:
        ValueError: the conversation is empty, has an unknown role, or its roles are out of order.
    """
    turns = list(messages)
    if turns and turns[0].role == "system":
        turns = turns[1:]
    if not turns:
        raise ValueError("the conversation is empty; it needs a user and an assistant message")
    for position, message in enumerate(turns):
        expected = ("user", "assistant")[position % 2]
        if message.role not in ROLES:
            raise ValueError(f"unknown role {message.role!r}; roles are {', '.join(ROLES)}")
        if message.role != expected:
            raise ValueError(
                f"turn {position + 1} comes from {message.role!r} where {expected!r} is due; "
                "after an optional system message, user and assistant take turns, the user first"
            )


def check_trainable(messages: Sequence[Message]) -> None:
    """Check that a conversation can be trained on: its turns are in order and the last is the assistant's.

    Raises:
        ValueError: the turns are out of order, or the conversation ends with a user's message.
    """
    check_turns(messages)
    if messages[-1].role != "assistant":
        raise ValueError("the conversation ends with a user message; the last message must be the assistant's")
