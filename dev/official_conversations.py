"""The conversations that are rendered with models' own templates and with those of lmflow-templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmflow_core.api import Message, ToolCall


@dataclass(frozen=True)
class Case:
    """A conversation to render.

    Attributes:
        messages: of the conversation.
        prompt: whether an answer is asked for at its end.
        tools: offered to the assistant.
        thinking: what the variable ``enable_thinking`` is set to; None leaves it out.
    """

    messages: tuple[Message, ...]
    prompt: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool | None = None


def _tool(name: str, description: str, **properties: Any) -> Mapping[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _user(text: str) -> Message:
    return Message("user", text)


def _says(text: str, reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning)


def _calls(*calls: ToolCall, text: str = "", reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning, calls)


_TOOLS = (
    _tool(
        "weather",
        "Tells the weather of a city",
        city={"type": "string", "description": "The city"},
        days={"type": "integer", "description": "How many days"},
    ),
    _tool("heure", "Dit l'heure qu'il est à « Zürich »", zone={"type": "string", "enum": ["CET", "UTC"]}),
)
_SYSTEM, _EMPTY = Message("system", "Be brief."), Message("system", "")
_ASK, _MORE, _LAST = _user("How are you?"), _user("And tomorrow?"), _user("Why?")
_ANSWER, _GOOD, _SO = _says("Fine."), _says("Better."), _says("Just so.")
_BERN = ToolCall("weather", {"city": "Bern", "days": 2})
_TIME = ToolCall("heure", {"zone": "CET"})
_CALL, _BOTH = _calls(_BERN), _calls(_BERN, _TIME)
_SUN, _NOON = Message("tool", "sun"), Message("tool", '{"time": "12:00"}')
_NESTED = ToolCall("weather", {"city": "Zürich", "days": 1.5, "more": {"a": [1, "b"], "c": None}, "sea": False})
_THOUGHT, _SECOND = _says("Fine.", "Say it kindly."), _says("Better.", "Be glad.")


def _turns(*turns: Message, prompt: bool = False, **more: Any) -> Case:
    return Case(turns, prompt, **more)


def _asked(*turns: Message, **more: Any) -> Case:
    return Case(turns, True, **more)


CASES: dict[str, Case] = {
    "question": _asked(_ASK),
    "answer": _turns(_ASK, _ANSWER),
    "system, question": _asked(_SYSTEM, _ASK),
    "system, answer": _turns(_SYSTEM, _ASK, _ANSWER),
    "empty system, question": _asked(_EMPTY, _ASK),
    "second question": _asked(_ASK, _ANSWER, _MORE),
    "two answers": _turns(_ASK, _ANSWER, _MORE, _GOOD),
    "system, second question": _asked(_SYSTEM, _ASK, _ANSWER, _MORE),
    "system, two answers": _turns(_SYSTEM, _ASK, _ANSWER, _MORE, _GOOD),
    "three answers": _turns(_ASK, _ANSWER, _MORE, _GOOD, _LAST, _SO),
    "spaces in the question": _asked(_user("  How are you? ")),
    "spaces in the system prompt": _asked(Message("system", " Be brief. \n"), _ASK),
    "spaces in the answer": _turns(_ASK, _says(" Fine. ")),
    "line breaks": _turns(_user("\nHow\n\nare you?\n"), _says("Fine.\n\nAnd you?")),
    "not ASCII": _turns(Message("system", "Sei knapp — «bitte»."), _user("Wie geht's? 😀"), _says("好。é")),
    "empty question": _asked(_user("")),
    "empty answer": _turns(_ASK, _says("")),
    "markup": _turns(_user('<b>&amp;</b> "quoted" \\n'), _says("{{ x }} {% y %} 'z'")),
    "tools, question": _asked(_ASK, tools=_TOOLS),
    "tools, system, question": _asked(_SYSTEM, _ASK, tools=_TOOLS),
    "tools, empty system": _asked(_EMPTY, _ASK, tools=_TOOLS),
    "tools, second question": _asked(_ASK, _ANSWER, _MORE, tools=_TOOLS),
    "tools unused": _turns(_SYSTEM, _ASK, _ANSWER, tools=_TOOLS[:1]),
    "call": _turns(_ASK, _CALL, tools=_TOOLS),
    "call, result": _asked(_ASK, _CALL, _SUN, tools=_TOOLS),
    "call, result, answer": _turns(_SYSTEM, _ASK, _CALL, _SUN, _ANSWER, tools=_TOOLS),
    "two calls, results": _asked(_ASK, _BOTH, _SUN, _NOON, tools=_TOOLS),
    "two calls, answer": _turns(_ASK, _BOTH, _SUN, _NOON, _ANSWER, tools=_TOOLS),
    "call after call": _turns(_ASK, _CALL, _SUN, _calls(_TIME), _NOON, _ANSWER, tools=_TOOLS),
    "text beside a call": _asked(_ASK, _calls(_BERN, text="Let me see."), _SUN, tools=_TOOLS),
    "call, answer, question": _asked(_ASK, _CALL, _SUN, _ANSWER, _MORE, tools=_TOOLS),
    "two answers with calls": _turns(_ASK, _CALL, _SUN, _ANSWER, _MORE, _calls(_TIME), _NOON, _GOOD, tools=_TOOLS),
    "nested arguments": _asked(_ASK, _calls(_NESTED), _SUN, tools=_TOOLS),
    "quotes in arguments": _asked(_ASK, _calls(ToolCall("weather", {"city": 'it\'s "B"\n\\'})), _SUN, tools=_TOOLS),
    "no arguments": _asked(_ASK, _calls(ToolCall("heure", {})), _NOON, tools=_TOOLS),
    "call without tools": _turns(_ASK, _CALL, _SUN, _ANSWER),
    "reasoning, answer": _turns(_ASK, _THOUGHT),
    "reasoning, second question": _asked(_ASK, _THOUGHT, _MORE),
    "reasoning, two answers": _turns(_SYSTEM, _ASK, _THOUGHT, _MORE, _SECOND),
    "reasoning at first": _turns(_ASK, _THOUGHT, _MORE, _GOOD),
    "reasoning, spaces": _turns(_ASK, _says("Fine.", " Say it\n\nkindly. \n")),
    "reasoning, call, result": _asked(_ASK, _calls(_BERN, reasoning="Look it up."), _SUN, tools=_TOOLS),
    "reasoning, call, question": _asked(
        _ASK, _calls(_BERN, reasoning="Look it up."), _SUN, _THOUGHT, _MORE, tools=_TOOLS
    ),
    "reasoning, call, answer": _turns(_ASK, _calls(_BERN, reasoning="Look it up."), _SUN, _THOUGHT, tools=_TOOLS),
    "thinking on": _asked(_SYSTEM, _ASK, thinking=True),
    "thinking off": _asked(_ASK, thinking=False),
    "thinking off, second question": _asked(_SYSTEM, _ASK, _ANSWER, _MORE, thinking=False),
}
