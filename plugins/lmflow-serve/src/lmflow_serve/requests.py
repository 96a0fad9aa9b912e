"""Bodies of requests: from JSON to what is asked, or to an error that names the field.

Whatever the server would not honour is refused: a client that asks for a penalty must not get an answer without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmflow_core.api import Message, ToolCall
from lmflow_serve.errors import invalid

T = TypeVar("T")

# Fields that become options of the decoder, which knows their ranges.
_SAMPLING: Mapping[str, type] = {"temperature": float, "top_p": float, "top_k": int, "repetition_penalty": float}
# Fields that are refused unless they ask for nothing.
_NOTHING: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
# Fields that are about the account of the one who asks, not about the answer.
_WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MOST_STOPS = 16
_MOST_LOGPROBS = {"chat": 20, "completion": 5}
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for. One of ``messages`` and ``prompt`` is given.

    Attributes:
        model: name of the model.
        options: values of the decoder's options by name.
        max_tokens: longest answer; None leaves it to the server. ``max_tokens_param`` is the field that gave it.
        stop: texts that end the answer, beside those of the server.
        seed: None leaves it to the server.
        stream: whether the answer is sent as it is written.
        include_usage: whether a stream ends with the usage.
        logprobs: alternatives to tell of each token; None tells no probabilities.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    max_tokens: int | None = None
    max_tokens_param: str = "max_tokens"
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False
    logprobs: int | None = None


def read_chat(body: bytes) -> Asked:
    """Read the body of a request for ``/v1/chat/completions``.

    Raises:
        ApiError: it is not JSON, or a field is missing, wrong or not supported.
    """
    fields = _Fields(body)
    messages = fields.required("messages", list)
    if not messages:
        raise invalid("'messages' is empty", "messages")
    common = _read_common(fields)
    newer, older = fields.take("max_completion_tokens", int), fields.take("max_tokens", int)
    tells = fields.take("logprobs", bool) or False
    top = fields.take("top_logprobs", int)
    if top and not tells:
        raise invalid("'top_logprobs' needs 'logprobs' to be true", "top_logprobs")
    fields.end()
    return Asked(
        messages=tuple(_message(value, f"messages[{at}]") for at, value in enumerate(messages)),
        max_tokens=_positive(newer if newer is not None else older, "max_tokens"),
        max_tokens_param="max_completion_tokens" if newer is not None else "max_tokens",
        logprobs=_logprobs(top or 0, "top_logprobs", "chat") if tells else None,
        **common,
    )


def read_completion(body: bytes) -> Asked:
    """Read the body of a request for ``/v1/completions``.

    Raises:
        ApiError: it is not JSON, or a field is missing, wrong or not supported.
    """
    fields = _Fields(body)
    prompt = fields.required("prompt", str, list)
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise invalid("'prompt' must be one text; token ids and several prompts are not supported", "prompt")
        prompt = prompt[0]
    if not prompt:
        raise invalid("'prompt' is empty", "prompt")
    common = _read_common(fields)
    max_tokens = _positive(fields.take("max_tokens", int), "max_tokens")
    logprobs = _logprobs(fields.take("logprobs", int), "logprobs", "completion")
    fields.end()
    return Asked(prompt=prompt, max_tokens=max_tokens, logprobs=logprobs, **common)


def _read_common(fields: _Fields) -> dict[str, Any]:
    for name, nothing in _NOTHING.items():
        value = fields.take(name)
        if value is not None and value not in nothing:
            raise invalid(f"'{name}' is not supported by this server", name, "unsupported_parameter")
    for name in _WITHOUT_EFFECT:
        fields.take(name)
    stream = fields.take("stream", bool) or False
    stream_options = fields.take("stream_options", dict)
    if stream_options is not None and not stream:
        raise invalid("'stream_options' needs 'stream' to be true", "stream_options")
    seed = fields.take("seed", int)
    return {
        "model": fields.required("model", str),
        "options": {name: value for name, kind in _SAMPLING.items() if (value := fields.take(name, kind)) is not None},
        "stop": _stops(fields.take("stop", str, list)),
        "seed": None if seed is None else seed % _SEEDS,
        "stream": stream,
        "include_usage": bool((stream_options or {}).get("include_usage")),
    }


class _Fields:
    """The fields of a body, taken one by one; what is left at the end is refused."""

    def __init__(self, body: bytes) -> None:
        self._values = _parse(body)

    def take(self, name: str, *kinds: type) -> Any:
        """Return a field of one of some types, or None when it is missing or null."""
        value = self._values.pop(name, None)
        if value is not None and kinds and not _is_one_of(value, kinds):
            expected = " or ".join(_TYPE_NAMES[kind] for kind in kinds)
            raise invalid(f"'{name}' must be {expected}", name, "invalid_type")
        return value

    def required(self, name: str, *kinds: type) -> Any:
        """Return a field that must be there."""
        value = self.take(name, *kinds)
        if value is None:
            raise invalid(f"missing required parameter: '{name}'", name, "missing_required_parameter")
        return value

    def end(self) -> None:
        """Refuse what nobody took."""
        for name in self._values:
            raise invalid(f"unknown parameter: '{name}'", name, "unknown_parameter")


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _is_one_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _parse(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, parse_constant=_refuse_constant)
        _check_text(values)
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body of the request is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise invalid("the body of the request must be a JSON object")
    return values


def _check_text(value: object) -> None:
    """Refuse half a surrogate pair: JSON can hold it, no text can."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half a surrogate pair") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise invalid(f"{where} must be an object", "messages")
    # Clients send back what they were given, with fields that are empty.
    given = {name: part for name, part in value.items() if part not in (None, [], "")}
    role = given.pop("role", None)
    if not isinstance(role, str) or role not in _ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(_ROLES)}", "messages")
    content = _content(given.pop("content", ""), f"{where}.content")
    calls = tuple(_tool_call(call, f"{where}.tool_calls") for call in _list(given.pop("tool_calls", []), where))
    if role == "tool":
        given.pop("tool_call_id", None)
    if value.get("content") is None and not calls:
        raise invalid(f"{where}.content is missing", "messages")
    for name in given:
        raise invalid(f"{where}.{name} is not supported by this server", "messages", "unsupported_parameter")
    return Message(_ROLES[role], content, tool_calls=calls)


def _content(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(_part(part, f"{where}[{at}]") for at, part in enumerate(_list(value, where)))


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise invalid(f'{where} must be {{"type": "text", "text": "…"}}; nothing else is supported', "messages")
    return str(part["text"])


def _tool_call(value: object, where: str) -> ToolCall:
    try:
        function = value["function"]  # type: ignore[index]
        arguments = json.loads(function["arguments"])
        _check_text(arguments)
        if isinstance(arguments, dict) and isinstance(function["name"], str):
            return ToolCall(function["name"], arguments)
    except (TypeError, KeyError, ValueError):
        pass
    raise invalid(f'{where} must hold {{"function": {{"name": "…", "arguments": "{{…}}"}}}}', "messages")


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(f"{where} must be an array or a string", "messages")
    return value


def _stops(value: str | list[object] | None) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else (value or [])
    if len(stops) > _MOST_STOPS or not all(isinstance(stop, str) and stop for stop in stops):
        raise invalid(f"'stop' must be up to {_MOST_STOPS} strings that are not empty", "stop")
    return tuple(str(stop) for stop in stops)


def _positive(value: int | None, name: str) -> int | None:
    if value is not None and value < 1:
        raise invalid(f"'{name}' must be at least 1", name)
    return value


def _logprobs(value: int | None, name: str, endpoint: str) -> int | None:
    most = _MOST_LOGPROBS[endpoint]
    if value is not None and not 0 <= value <= most:
        raise invalid(f"'{name}' must be from 0 to {most}", name)
    return value
