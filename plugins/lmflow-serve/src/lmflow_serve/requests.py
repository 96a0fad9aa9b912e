"""Bodies of requests: from JSON to what is asked, or to an error that names the field.

Whatever the server would not honour is refused: a client that asks for a penalty must not get an answer without one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lmflow_core.api import Message
from lmflow_serve.errors import invalid
from lmflow_serve.fields import Fields
from lmflow_serve.messages import read_message

# Fields that become options of the decoder, which knows their ranges.
_SAMPLING: Mapping[str, type] = {"temperature": float, "top_p": float, "top_k": int, "repetition_penalty": float}
# Fields that are refused unless they ask for nothing.
_NOTHING: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
    "tool_choice": ("auto",),
    "parallel_tool_calls": (True,),
}
# Fields that are about the account of the one who asks, not about the answer.
_WITHOUT_EFFECT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# Options of a decoder by other names than the fields that ask for them.
FIELDS: Mapping[str, str] = {"json_schema": "response_format"}
_MOST_ANSWERS = 128
_MOST_STOPS = 16
_LONGEST_STOP = 1000
# What a schema takes to prepare grows with the square of its fields: about half a second for one of this length.
_LONGEST_SCHEMA = 50_000
_MOST_LOGPROBS = {"chat": 20, "completion": 5}
_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for. One of ``messages`` and ``prompt`` is given.

    Attributes:
        model: name of the model.
        tools: the tools that the answer may call.
        options: values of the decoder's options by name.
        n: how many answers are asked for.
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
    tools: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    n: int = 1
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
    fields = Fields(body)
    messages = fields.required("messages", list)
    if not messages:
        raise invalid("'messages' is empty", "messages")
    common = _common(fields)
    newer, older = fields.take("max_completion_tokens", int), fields.take("max_tokens", int)
    tells = fields.take("logprobs", bool) or False
    top = fields.take("top_logprobs", int)
    if top and not tells:
        raise invalid("'top_logprobs' needs 'logprobs' to be true", "top_logprobs")
    tools = fields.take("tools", list) or []
    fields.end()
    return Asked(
        tools=tuple(_tool(value, f"tools[{at}]") for at, value in enumerate(tools)),
        messages=tuple(read_message(value, f"messages[{at}]") for at, value in enumerate(messages)),
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
    fields = Fields(body)
    prompt = fields.required("prompt", str, list)
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise invalid("'prompt' must be one text; token ids and several prompts are not supported", "prompt")
        prompt = prompt[0]
    if not prompt:
        raise invalid("'prompt' is empty", "prompt")
    common = _common(fields)
    max_tokens = _positive(fields.take("max_tokens", int), "max_tokens")
    logprobs = _logprobs(fields.take("logprobs", int), "logprobs", "completion")
    fields.end()
    return Asked(prompt=prompt, max_tokens=max_tokens, logprobs=logprobs, **common)


def _tool(value: object, where: str) -> Mapping[str, Any]:
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(f'{where} must be {{"type": "function", "function": {{"name": "…", …}}}}', "tools")
    return {"type": "function", "function": function}


def _common(fields: Fields) -> dict[str, Any]:
    for name, nothing in _NOTHING.items():
        value = fields.take(name)
        if value is not None and value not in nothing:
            raise invalid(f"'{name}' is not supported by this server", name, "unsupported_parameter")
    for name in _WITHOUT_EFFECT:
        fields.take(name)
    sampling = {name: value for name, kind in _SAMPLING.items() if (value := fields.take(name, kind)) is not None}
    stream = fields.take("stream", bool) or False
    seed = fields.take("seed", int)
    return {
        "model": fields.required("model", str),
        "options": {**sampling, **_logit_bias(fields.take("logit_bias", dict)), **_schema(fields)},
        "n": _answers(fields.take("n", int)),
        "stop": _stops(fields.take("stop", str, list)),
        "seed": None if seed is None else seed % _SEEDS,
        "stream": stream,
        "include_usage": _include_usage(fields.take("stream_options", dict), stream),
    }


def _answers(value: int | None) -> int:
    if value is not None and not 1 <= value <= _MOST_ANSWERS:
        raise invalid(f"'n' must be from 1 to {_MOST_ANSWERS}", "n")
    return value or 1


def _logit_bias(value: Mapping[str, object] | None) -> dict[str, object]:
    """Return a field of biases by token ids as the option of a decoder."""
    if not value:
        return {}
    for token, bias in value.items():
        if not token.isdecimal() or isinstance(bias, bool) or not isinstance(bias, int | float):
            raise invalid("'logit_bias' must be an object of numbers from -100 to 100 by token ids", "logit_bias")
    return {"logit_bias": [f"{token}:{bias}" for token, bias in value.items()]}


def _schema(fields: Fields) -> dict[str, object]:
    """Return the form of an answer as the option of a decoder; nothing for plain text."""
    asked = fields.take("response_format", dict)
    if asked is None or asked == {"type": "text"}:
        return {}
    if asked == {"type": "json_object"}:
        return {"json_schema": '{"type": "object"}'}
    described = asked.get("json_schema") if asked.get("type") == "json_schema" else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise invalid(
            '\'response_format\' must be {"type": "text"}, {"type": "json_object"} or '
            '{"type": "json_schema", "json_schema": {"name": "…", "schema": {…}}}',
            "response_format",
        )
    text = json.dumps(schema)
    if len(text) > _LONGEST_SCHEMA:
        raise invalid(f"the schema in 'response_format' is longer than {_LONGEST_SCHEMA} bytes", "response_format")
    return {"json_schema": text}


def _include_usage(stream_options: Mapping[str, object] | None, stream: bool) -> bool:
    if stream_options is None:
        return False
    if not stream:
        raise invalid("'stream_options' needs 'stream' to be true", "stream_options")
    if stream_options.keys() - {"include_usage"}:
        raise invalid("'stream_options' may hold 'include_usage' and nothing else", "stream_options")
    return bool(stream_options.get("include_usage"))


def _stops(value: str | list[object] | None) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else (value or [])
    if len(stops) > _MOST_STOPS or not all(isinstance(stop, str) and 0 < len(stop) <= _LONGEST_STOP for stop in stops):
        raise invalid(f"'stop' must be up to {_MOST_STOPS} strings of 1 to {_LONGEST_STOP} characters", "stop")
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
