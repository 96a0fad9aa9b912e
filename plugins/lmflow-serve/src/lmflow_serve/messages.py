"""Messages of a chat: from JSON to those that a template renders."""

from __future__ import annotations

from typing import Any

from lmflow_core.api import ImagePart, Message, ToolCall
from lmflow_serve.errors import invalid
from lmflow_serve.fields import parse_json
from lmflow_serve.images import read_image

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def read_message(value: object, where: str) -> Message:
    """Read one message of a chat; ``where`` names it in errors.

    Raises:
        ApiError: it is no message, or holds what no template can render.
    """
    if not isinstance(value, dict):
        raise invalid(f"{where} must be an object", "messages")
    # Clients send back what they were given, with fields that are empty.
    given = {name: part for name, part in value.items() if part not in (None, [], "")}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(_ROLES)}", "messages")
    content = _content(given.pop("content", ""), f"{where}.content")
    where_calls = f"{where}.tool_calls"
    calls = tuple(_tool_call(call, where_calls) for call in _list(given.pop("tool_calls", []), where_calls))
    if role == "tool":
        given.pop("tool_call_id", None)
    if value.get("content") is None and not calls:
        raise invalid(f"{where}.content is missing", "messages")
    for name in given:
        raise invalid(f"{where}.{name} is not supported by this server", "messages", "unsupported_parameter")
    return Message(_ROLES[role], content, tool_calls=calls)


def _content(value: object, where: str) -> str | tuple[str | ImagePart, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise invalid(f"{where} must be a string or an array", "messages")
    parts = [_part(part, f"{where}[{at}]") for at, part in enumerate(value)]
    # Texts side by side are lines; the parts keep their places, by which errors name images.
    lined = [
        f"\n{part}" if at and isinstance(part, str) and isinstance(parts[at - 1], str) else part
        for at, part in enumerate(parts)
    ]
    texts = [part for part in lined if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(lined) else tuple(lined)


def _part(part: object, where: str) -> str | ImagePart:
    if isinstance(part, dict) and part.get("type") == "image_url":
        return read_image(part.get("image_url"), where)
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise invalid(f"{where} must be of the type text or image_url; nothing else is supported", "messages")
    return str(part["text"])


def _tool_call(value: object, where: str) -> ToolCall:
    try:
        function = value["function"]  # type: ignore[index]
        arguments = parse_json(function["arguments"])
        if isinstance(arguments, dict) and isinstance(function["name"], str):
            return ToolCall(function["name"], arguments)
    except (TypeError, KeyError, ValueError):
        pass
    raise invalid(f'{where} must hold {{"function": {{"name": "…", "arguments": "{{…}}"}}}}', "messages")


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(f"{where} must be an array", "messages")
    return value
