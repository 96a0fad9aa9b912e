"""Prompts beside encoded examples, so that answers can be judged where they are sampled: made of rows, kept as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lmflow_core.contracts.examples import Conversation, ImagePart, Message, Part, Prompt, ToolCall
from lmflow_core.data.examples import Located


def as_prompt(located: Located) -> Prompt | None:
    """Return the prompt of an example with the fields of its row; that of a conversation ends before its last answer.

    None where it has no prompt.
    """
    example = located.example
    if isinstance(example, Prompt):
        return dataclasses.replace(example, fields=located.fields)
    if isinstance(example, Conversation):
        return Prompt(example.messages[:-1], example.tools, located.fields)
    return None


def as_plain(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as values that JSON holds."""
    return {
        "messages": [_plain_message(message) for message in prompt.messages],
        "tools": [dict(tool) for tool in prompt.tools],
        "fields": dict(prompt.fields),
    }


def from_plain(plain: Mapping[str, Any]) -> Prompt:
    """Return the prompt that :func:`as_plain` wrote."""
    return Prompt(tuple(map(_message, plain["messages"])), tuple(plain["tools"]), plain["fields"])


def _plain_message(message: Message) -> dict[str, Any]:
    values = dataclasses.asdict(message)
    if not isinstance(message.content, str):
        values["content"] = [{"image": p.source} if isinstance(p, ImagePart) else p for p in message.content]
    return {name: value for name, value in values.items() if value not in (None, ())}


def _message(values: Mapping[str, Any]) -> Message:
    content = values["content"]
    parts = content if isinstance(content, str) else tuple(map(_part, content))
    calls = tuple(ToolCall(**call) for call in values.get("tool_calls", ()))
    return Message(**{**values, "content": parts, "tool_calls": calls})


def _part(plain: str | Mapping[str, str]) -> Part:
    return plain if isinstance(plain, str) else ImagePart(plain["image"])
