"""Messages and tools, as OpenAI, sharegpt and LMFlow write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmflow_core.api import Message, ToolCall
from lmflow_datasets.contents import content
from lmflow_datasets.fields import field, items, mapping, optional_text, parsed, text, type_name

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_REASONING = ("reasoning_content", "reasoning", "thinking")


def openai_messages(row: Mapping[str, Any], name: str = "messages") -> tuple[Message, ...]:
    """Return a list of messages with ``role`` and ``content``.

    A message may call tools (``tool_calls``), hold the reasoning before it (``reasoning_content``), and say with
    ``"train": false`` or OpenAI's ``"weight": 0`` that it is not trained on.

    Raises:
        ValueError: a message lacks a field, or one is not what it must be; the error names message and field.
    """
    return _each(row, name, _openai_message)


def sharegpt_messages(row: Mapping[str, Any], name: str = "conversations") -> tuple[Message, ...]:
    """Return a list of turns with ``from`` and ``value``; ``function_call`` and ``observation`` are tools' turns.

    Raises:
        ValueError: as :func:`openai_messages`.
    """
    return _each(row, name, sharegpt_message)


def _each(row: Mapping[str, Any], name: str, read: Any) -> tuple[Message, ...]:
    found = []
    for position, item in enumerate(items(row, name), start=1):
        what = f"message {position} of {name!r}"
        item = mapping(item, what)
        try:
            found.append(read(item))
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
    return tuple(found)


def _openai_message(item: Mapping[str, Any]) -> Message:
    role = _role(text(item, "role"), _ROLES)
    calls = tuple(_tool_call(call) for call in items(item, "tool_calls")) if item.get("tool_calls") else ()
    reasoning = next((optional_text(item, name) for name in _REASONING if item.get(name)), None)
    empty = bool(calls) or role == "tool"
    written = "" if calls and item.get("content") is None else content(item, allow_empty=empty)
    return Message(role, written, reasoning, calls, _train(item))


def _train(item: Mapping[str, Any]) -> bool | None:
    if item.get("train") is not None:
        if not isinstance(item["train"], bool):
            raise ValueError(f"the field 'train' must be true or false, not {type_name(item['train'])}")
        return item["train"]
    weight = item.get("weight")
    if weight is None:
        return None
    if isinstance(weight, bool) or weight not in (0, 1):
        raise ValueError(f"the field 'weight' must be 0 or 1, not {weight!r}")
    return None if weight else False


def sharegpt_message(item: Mapping[str, Any]) -> Message:
    """Return one turn with ``from`` and ``value``.

    Raises:
        ValueError: a field is missing or not what it must be.
    """
    written = text(item, "from")
    role = _role(written, _SHAREGPT_ROLES)
    if written == "function_call":
        calls = parsed(text(item, "value"), "a function call")
        return Message(
            role, "", None, tuple(map(_tool_call, calls if isinstance(calls, list) else [calls])), _train(item)
        )
    return Message(role, text(item, "value", allow_empty=role == "tool"), None, (), _train(item))


def _role(written: str, roles: Mapping[str, str]) -> str:
    if written not in roles:
        raise ValueError(f"unknown role {written!r}; roles are {', '.join(roles)}")
    return roles[written]


def _tool_call(call: object) -> ToolCall:
    call = mapping(call, "a tool call")
    function = mapping(call.get("function", call), "the field 'function'")
    arguments = mapping(parsed(field(function, "arguments"), "the arguments of a tool call"), "the field 'arguments'")
    return ToolCall(text(function, "name"), arguments)


def tools(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a row in OpenAI's form; they may stand as JSON in a text, and without their envelope.

    Raises:
        ValueError: a tool is no object with a name.
    """
    found = parsed(row.get("tools") or [], "the field 'tools'")
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise ValueError(f"the field 'tools' must be a list, not {type_name(found)}")
    return tuple(_tool(parsed(tool, "a tool")) for tool in found)


def _tool(tool: object) -> Mapping[str, Any]:
    tool = mapping(tool, "a tool")
    function = mapping(tool.get("function", tool), "the field 'function' of a tool")
    text(function, "name")
    return tool if "function" in tool else {"type": "function", "function": dict(function)}


def with_system(prompt: str, turns: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns behind a system prompt that stands beside them, if there is one."""
    return (Message("system", prompt), *turns) if prompt else tuple(turns)
