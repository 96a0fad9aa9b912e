"""A conversation as a row of JSON, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmflow_core.contracts.examples import ImagePart, Message, Part
from lmflow_core.data.image_paths import is_address
from lmflow_core.errors import RequestError
from lmflow_core.files.output import write_text


def messages_row(messages: Sequence[Message]) -> str:
    """Return a conversation as a line of JSON that ``lmflow finetune`` can train on."""
    turns = [{"role": message.role, "content": _written(message)} for message in messages]
    return json.dumps({"messages": turns}, ensure_ascii=False) + "\n"


def shown(text: str, images: Sequence[str | Path]) -> Message:
    """Return a user's message whose text stands behind some images, by paths or addresses."""
    return Message("user", (*(ImagePart(str(image)) for image in images), text) if images else text)


def _written(message: Message) -> str | list[dict[str, str]]:
    """Return a content as it stands in a row: a text, or its parts, whose images are whole paths."""
    if all(isinstance(part, str) for part in message.parts):
        return message.text
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": _whole(part.source)}
        for part in message.parts
    ]


def _whole(source: str) -> str:
    return source if is_address(source) else str(Path(source).expanduser().absolute())


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
    return Message(role, content if isinstance(content, str) else _parts(content, number))


def _parts(content: Any, number: int) -> tuple[Part, ...]:
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        read = [_part(part) for part in content]
        if None not in read:
            return tuple(part for part in read if part is not None)
    raise ValueError(f"message {number}: the content must be text, or a list of texts and images")


def _part(part: dict[str, Any]) -> Part | None:
    """Return a part of the form ``{"type": "text", "text": …}`` or ``{"type": "image", "image": …}``; else None."""
    kind = part.get("type")
    value = part.get(kind) if kind in ("text", "image") and set(part) == {"type", kind} else None
    if not isinstance(value, str):
        return None
    return value if kind == "text" else ImagePart(value)


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
