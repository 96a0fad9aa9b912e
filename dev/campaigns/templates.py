"""Renders hostile conversations with every template of lmflow-templates, as segments and with its Jinja.

A case is lost when the two differ, when something trained on does not follow from the prompt it would be asked with, or
when a call is not read back as it was written.

``python dev/campaigns/templates.py --cases 20000``
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tally import Tally, campaign_arguments

from lmflow_core.api import ChatTemplate, Message, Segment, ToolCall, as_turns, is_trained
from lmflow_core.templates.reasoning import reasoning_marks
from lmflow_templates import plugin

_PIECES = (
    *(
        "a",
        "b c",
        " ",
        "\n",
        "\n\n",
        "\t",
        "",
        "'",
        '"',
        "\\",
        "\\n",
        "{{ x }}",
        "{% raw %}",
        "{#",
        "{content}",
        "😀",
        "é",
    ),
    *(
        "<|im_end|>",
        "</s>",
        "<tool_call>",
        "</tool_call>",
        "<parameter=a>\n",
        "\n</parameter>\n",
        "</function>",
        "\x00",
    ),
    *(
        "<arg_value>",
        "</arg_value>",
        "[TOOL_CALLS]",
        "<think>",
        "none",
        "null",
        "True",
        "12",
        "1e5",
        '{"a": 1}',
        "\u2028",
    ),
)
_NAMES = ("f", "get_weather", "my.tool-2")


class _Known:
    """A template with its compiled Jinja."""

    def __init__(self, target: str) -> None:
        module, _, attribute = target.partition(":")
        loaded: ChatTemplate = getattr(importlib.import_module(module), attribute)
        self.template = loaded.bind("<s>", "</s>")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
        self._jinja: Template = environment.from_string(self.template.to_jinja())

    def in_jinja(self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]]) -> str:
        return self._jinja.render(messages=as_turns(messages), add_generation_prompt=prompt, tools=[*tools])


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _text(rng: random.Random) -> str:
    return "".join(rng.choice(_PIECES) for _ in range(rng.randint(0, 6)))


def _value(rng: random.Random, depth: int = 0) -> Any:
    if depth < 2 and rng.random() < 0.3:
        inside = [_value(rng, depth + 1) for _ in range(rng.randint(0, 2))]
        return inside if rng.random() < 0.5 else {f"k{at}": value for at, value in enumerate(inside)}
    return rng.choice((_text(rng), rng.randint(-9, 10**12), rng.random(), True, False, None))


def _tool(rng: random.Random, name: str) -> dict[str, Any]:
    kinds = ("string", "integer", ["string", "null"])
    properties = {
        f"p{at}": {"type": rng.choice(kinds), _text(rng) or "x": _value(rng)} for at in range(rng.randint(0, 2))
    }
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "description": _text(rng), "parameters": parameters}}


def _conversation(rng: random.Random, template: ChatTemplate) -> tuple[Message, ...]:
    system = template.system is not None and rng.random() < 0.6
    messages = [Message("system", _text(rng))] if system else []
    for _ in range(rng.randint(1, 3)):
        messages.append(Message("user", _text(rng)))
        while template.tools and rng.random() < 0.4:
            count = rng.randint(1, 2) if template.tools.several_calls else 1
            calls = tuple(
                ToolCall(rng.choice(_NAMES), {f"p{at}": _value(rng) for at in range(rng.randint(0, 3))})
                for _ in range(count)
            )
            said = _text(rng) if template.tools.content_beside_calls and rng.random() < 0.5 else ""
            messages.append(Message("assistant", said, _reasoning(rng), calls))
            messages += [Message("tool", _text(rng)) for _ in calls]
        messages.append(Message("assistant", _text(rng), _reasoning(rng)))
    return tuple(messages)


def _reasoning(rng: random.Random) -> str | None:
    return _text(rng) if rng.random() < 0.4 else None


def _joined(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _problem(known: _Known, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what is wrong with the renderings of a conversation and of its prompts."""
    segments = known.template.render(messages, False, tools)
    if known.in_jinja(messages, False, tools) != _joined(segments):
        return f"Jinja differs: {messages!r}"
    prompts = set()
    for at, message in enumerate(messages):
        if message.role == "assistant":
            prompt = _joined(known.template.render(messages[:at], True, tools))
            if known.in_jinja(messages[:at], True, tools) != prompt:
                return f"Jinja differs in a prompt: {messages[:at]!r}"
            prompts |= {prompt} if is_trained(message) else set()
    return next((f"no prompt gives {text!r}" for text in _before_trained(segments) if text not in prompts), None)


def _before_trained(segments: Sequence[Segment]) -> list[str]:
    """Return the text before each part that is trained on."""
    text, found, inside = "", [], False
    for segment in segments:
        if segment.trainable and not inside:
            found.append(text)
        inside = segment.trainable
        text += segment.text
    return found


def _misread(template: ChatTemplate, rng: random.Random) -> str | None:
    """Return how a call is misread, whose values hold no markup of the template's own."""
    kinds = ("12", "one, two", "ü's", 'a "b"', "line\nbreak", 3, 2.5, None, True, ["x", 1], {"y": "z"})
    values = {f"p{at}": rng.choice(kinds) for at in range(rng.randint(0, 3))}
    schema = {name: {"type": "string" if isinstance(value, str) else "object"} for name, value in values.items()}
    name = rng.choice(_NAMES)
    tool = {"function": {"name": name, "parameters": {"properties": schema}}}
    call = ToolCall(name, values)
    segments = template.render((Message("user", "u"), Message("assistant", "", tool_calls=(call,))), False, [tool])
    text = _joined([segment for segment in segments if segment.trainable])
    if template.reasoning is not None:
        text = text.split(reasoning_marks(template, template.reasoning)[1])[-1]
    text = min((text.split(stop)[0] for stop in template.stop), key=len)
    read = template.read_calls(text, [tool])
    return None if read is not None and read[1] == (call,) else f"{text!r} is read as {read!r}"


def main() -> None:
    """Run the campaign."""
    cases, rng = campaign_arguments(__doc__, 20000)
    known = [(spec.name, _Known(spec.target)) for spec in plugin.lmflow_register_templates()]
    tally = Tally()
    for number in range(cases):
        name, one = known[number % len(known)]
        tools = [_tool(rng, name) for name in _NAMES] if one.template.tools and rng.random() < 0.6 else []
        problem = _problem(one, _conversation(rng, one.template), tools)
        tally.add("conversations", problem and f"{name}: {problem}")
        if one.template.tools:
            problem = _misread(one.template, rng)
            tally.add("calls read back", problem and f"{name}: {problem}")
    tally.finish()


if __name__ == "__main__":
    main()
