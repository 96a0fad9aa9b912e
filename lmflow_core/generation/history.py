"""A conversation as a row of JSON, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmflow_core.contracts.examples import Message
from lmflow_core.errors import RequestError
from lmflow_core.files.output import write_text


def messages_row(messages: Sequence[Message]) -> str:
    """Return a conversation as a line of JSON that ``lmflow finetune`` can train on."""
    turns = [{"role": message.role, "content": message.text} for message in messages]
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
