"""What a row of data means (an example) and what a template makes of it (segments)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

ROLES = ("system", "user", "assistant", "tool")
TRAIN_ON = ("assistant", "last", "all")


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant makes: a tool's name and its arguments as JSON values by name."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ImagePart:
    """An image inside of a content; ``source`` is a path or an address. It is opened when a batch is made."""

    source: str


Part = str | ImagePart


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: one of :data:`ROLES`; ``tool`` gives the result of a call.
        content: the text of the turn, or its parts in order: texts and images. It may be empty in a turn that calls
            tools.
        reasoning: what the assistant thought before its answer, where a template has a place for it.
        tool_calls: the calls the assistant makes in this turn.
        train: whether an assistant's turn is trained on; None leaves it to the policy of the run.
    """

    role: str
    content: str | tuple[Part, ...]
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    train: bool | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The text of the content, without its images."""
        return "".join(part for part in self.parts if isinstance(part, str))


class Segment(NamedTuple):
    """A piece of a rendered example.

    ``control`` text comes from a template and may hold control tokens; other text comes from data or from a
    user and never becomes one. ``trainable`` text carries labels. A segment with an ``image`` has no text and is never
    trainable: the model's own tokens stand for the image.
    """

    text: str
    trainable: bool = False
    control: bool = False
    image: ImagePart | None = None


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


@dataclass(frozen=True)
class Prompt:
    """Messages whose answer the data does not have, the last a user's or tool's; ``fields`` is the row, for rewards."""

    kind: ClassVar[str] = "prompt"
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Preference:
    """Two answers to the same, of which one was preferred; ``margin`` tells by how much, where the data does."""

    kind: ClassVar[str] = "preference"
    chosen: Conversation | Prompted
    rejected: Conversation | Prompted
    margin: float | None = None


@dataclass(frozen=True)
class Judged:
    """An answer with a verdict on it, as KTO learns from."""

    kind: ClassVar[str] = "judged"
    example: Conversation | Prompted
    desirable: bool


@dataclass(frozen=True)
class Candidates:
    """Several answers to a prompt, each with a score where the data has scores (else ``scores`` is empty)."""

    kind: ClassVar[str] = "candidates"
    prompt: str
    texts: tuple[str, ...]
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Value:
    """A number, such as a reward."""

    kind: ClassVar[str] = "value"
    value: float


@dataclass(frozen=True)
class ImageText:
    """A text about images; ``images`` are paths or addresses."""

    kind: ClassVar[str] = "image_text"
    images: tuple[str, ...]
    text: str


Example = Text | Prompted | Conversation | Prompt | Preference | Judged | Candidates | Value | ImageText


def parts(example: Example) -> tuple[Text | Prompted | Conversation | Prompt | Candidates | Value | ImageText, ...]:
    """Return the examples inside one, of which a pair has two."""
    if isinstance(example, Preference):
        return (example.chosen, example.rejected)
    return (example.example,) if isinstance(example, Judged) else (example,)


def has_conversation(example: Example) -> bool:
    """Whether an example needs a template."""
    return any(isinstance(part, Conversation | Prompt) for part in parts(example))


def with_training(messages: Sequence[Message], policy: str) -> tuple[Message, ...]:
    """Return the messages with ``train`` set to True or False on each: the one place where this is decided.

    A turn whose ``train`` is False stays untrained; system messages and tool results are never trained.

    Args:
        policy: ``assistant`` trains the assistant's turns, ``last`` only the last of them, ``all`` the user's too.

    Raises:
        ValueError: the policy is none of :data:`TRAIN_ON`.
    """
    if policy not in TRAIN_ON:
        raise ValueError(f"unknown policy {policy!r}; it must be one of {', '.join(TRAIN_ON)}")
    roles = ("user", "assistant") if policy == "all" else ("assistant",)
    chosen = [at for at, message in enumerate(messages) if message.role in roles]
    if policy == "last":
        chosen = chosen[-1:]
    return tuple(
        replace(message, train=at in chosen and message.train is not False) for at, message in enumerate(messages)
    )


def is_trained(message: Message) -> bool:
    """Whether a message is trained on; where nothing is said, the assistant's turns are."""
    return message.role == "assistant" if message.train is None else message.train


def call_id(number: int) -> str:
    """Return the id of a conversation's first, second, … call of a tool: nine digits, for templates that need ids."""
    return f"{number:09d}"


def as_turns(messages: Sequence[Message], *, parts: bool = False) -> list[dict[str, Any]]:
    """Return messages as chat templates take them; calls are numbered, as some need ids.

    A content with images is a list of ``{"type": "text", "text": …}`` and ``{"type": "image", "image": …}``; with
    ``parts`` every content is one.
    """
    turns: list[dict[str, Any]] = []
    calls = results = 0
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": _content(message, parts)}
        if message.reasoning is not None:
            turn |= {"reasoning_content": message.reasoning, "thinking": message.reasoning}
        if message.tool_calls:
            results = calls
            calls += len(message.tool_calls)
            turn["tool_calls"] = [
                {
                    "id": call_id(number),
                    "type": "function",
                    "function": {"name": c.name, "arguments": dict(c.arguments)},
                }
                for number, c in enumerate(message.tool_calls, results + 1)
            ]
        elif message.role == "tool":
            results += 1
            turn["tool_call_id"] = call_id(results)
        turns.append(turn)
    return turns


def _content(message: Message, listed: bool) -> str | list[dict[str, str]]:
    if not listed and not any(isinstance(part, ImagePart) for part in message.parts):
        return message.text  # templates that know no parts take it, too
    return [
        {"type": "image", "image": part.source} if isinstance(part, ImagePart) else {"type": "text", "text": part}
        for part in message.parts
    ]


_DUE = {"system": ("user",), "user": ("assistant",), "assistant": ("user",), "tool": ("assistant", "tool")}


def check_turns(messages: Sequence[Message]) -> None:
    """Check the order of a conversation: an optional system message, then user and assistant in turn.

    Results of tools stand between an assistant's turn that calls tools and the assistant's next turn.

    Raises:
        ValueError: the conversation is empty, has an unknown role, or its roles are out of order.
    """
    turns = list(messages)
    if turns and turns[0].role == "system":
        turns = turns[1:]
    if not turns:
        raise ValueError("the conversation is empty; it needs a user and an assistant message")
    due = _DUE["system"]
    for position, message in enumerate(turns):
        if message.role not in ROLES:
            raise ValueError(f"unknown role {message.role!r}; roles are {', '.join(ROLES)}")
        if message.role not in due:
            raise ValueError(
                f"turn {position + 1} comes from {message.role!r} where {' or '.join(map(repr, due))} is due; "
                "after an optional system message, user and assistant take turns, the user first"
            )
        due = ("user", "tool") if message.tool_calls else _DUE[message.role]


def check_trainable(messages: Sequence[Message]) -> None:
    """Check that a conversation can be trained on: its turns are in order and the last is the assistant's.

    Raises:
        ValueError: the turns are out of order, or the conversation does not end with the assistant's.
    """
    check_turns(messages)
    if messages[-1].role != "assistant":
        raise ValueError(
            f"the conversation ends with a {messages[-1].role} message; the last message must be the assistant's"
        )


def check_prompt(messages: Sequence[Message]) -> None:
    """Check that messages ask for an answer: their turns are in order and the last is the user's or a tool's.

    Raises:
        ValueError: the turns are out of order, or the last is the assistant's.
    """
    check_turns(messages)
    if messages[-1].role not in ("user", "tool"):
        raise ValueError(
            f"the prompt ends with a message of the {messages[-1].role}; the last message must be the user's or a "
            "tool's result"
        )
