"""The conversations that every template is tried with, and how their renderings are written down."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmflow_core.api import ChatTemplate, Message, Segment, ToolCall
from lmflow_templates import plugin

BOS, EOS = "<s>", "</s>"


def load(target: str) -> ChatTemplate:
    module, _, attribute = target.partition(":")
    template = getattr(importlib.import_module(module), attribute)
    assert isinstance(template, ChatTemplate)
    return template.bind(BOS, EOS)


TEMPLATES = {spec.name: load(spec.target) for spec in plugin.lmflow_register_templates()}

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}
NOW = {
    "type": "function",
    "function": {"name": "now", "description": "Té", "parameters": {"type": "object", "properties": {}}},
}
TOOLS: tuple[Mapping[str, Any], ...] = (ADD, NOW)

SYSTEM = Message("system", "Be brief.")
ASK, ANSWER = Message("user", "2 + 3?"), Message("assistant", "5")
ASK_MORE, ANSWER_MORE = Message("user", "And 2 * 3?"), Message("assistant", "6")
THOUGHT = Message("assistant", "5", reasoning="2, 3.")
THOUGHT_MORE = Message("assistant", "6", reasoning="Twice 3.")
_ADD_CALL, _NOW_CALL = ToolCall("add", {"a": 2, "b": 3}), ToolCall("now", {})
CALL, TWO_CALLS = (Message("assistant", "", tool_calls=calls) for calls in ((_ADD_CALL,), (_ADD_CALL, _NOW_CALL)))
SAY_AND_CALL = Message("assistant", "Let me see.", tool_calls=(_ADD_CALL,))
THINK_AND_CALL = Message("assistant", "", reasoning="Call it.", tool_calls=(_ADD_CALL,))
RESULT, NOON = Message("tool", "5"), Message("tool", '"noon"')

Shape = tuple[tuple[Message, ...], bool, tuple[Mapping[str, Any], ...]]
SHAPES: dict[str, Shape] = {
    "single": ((ASK, ANSWER), False, ()),
    "several": ((ASK, ANSWER, ASK_MORE, ANSWER_MORE), False, ()),
    "system": ((SYSTEM, ASK, ANSWER), False, ()),
    "system, several": ((SYSTEM, ASK, ANSWER, ASK_MORE, ANSWER_MORE), False, ()),
    "prompt": ((ASK,), True, ()),
    "system, prompt": ((SYSTEM, ASK), True, ()),
    "second prompt": ((ASK, ANSWER, ASK_MORE), True, ()),
    "system, second prompt": ((SYSTEM, ASK, ANSWER, ASK_MORE), True, ()),
    "thoughts": ((ASK, THOUGHT), False, ()),
    "thoughts, several": ((ASK, THOUGHT, ASK_MORE, THOUGHT_MORE), False, ()),
    "thoughts, second prompt": ((ASK, THOUGHT, ASK_MORE), True, ()),
    "thoughts at first": ((ASK, THOUGHT, ASK_MORE, ANSWER_MORE), False, ()),
    "tools": ((ASK,), True, TOOLS),
    "tools, system": ((SYSTEM, ASK), True, TOOLS),
    "call": ((ASK, CALL), False, TOOLS),
    "result": ((SYSTEM, ASK, CALL, RESULT), True, TOOLS),
    "result, answer": ((SYSTEM, ASK, CALL, RESULT, ANSWER), False, TOOLS),
    "two calls": ((ASK, TWO_CALLS, RESULT, NOON, ANSWER), False, TOOLS),
    "call after call": ((ASK, CALL, RESULT, CALL, RESULT, ANSWER), False, TOOLS),
    "text and call": ((ASK, SAY_AND_CALL, RESULT, ANSWER), False, TOOLS),
    "result, several": ((ASK, CALL, RESULT, ANSWER, ASK_MORE, ANSWER_MORE), False, TOOLS),
    "thoughts and call": ((ASK, THINK_AND_CALL, RESULT, THOUGHT), False, TOOLS),
    "thoughts and call, prompt": ((ASK, THINK_AND_CALL, RESULT), True, TOOLS),
}


def text_of(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def marked(segments: Sequence[Segment]) -> str:
    """Return the text with ``⟦…⟧`` around what is trained on."""
    written = "".join(f"⟦{segment.text}⟧" if segment.trainable else segment.text for segment in segments)
    return written.replace("⟧⟦", "")


def rendered(template: ChatTemplate, shape: Shape) -> str | None:
    """Return the text of a conversation, or None when the template has no place for something in it."""
    try:
        return text_of(template.render(*shape))
    except ValueError as error:
        if "no place for" not in str(error):
            raise
        return None


def with_tools_written(golden: str) -> str:
    """Put the JSON of the tools in place of their names."""
    both, each = json.dumps([ADD, NOW], indent=4, ensure_ascii=False), {"ADD": ADD, "NOW": NOW}
    golden = golden.replace("BOTH4", both)
    for name, tool in each.items():
        golden = golden.replace(f"{name}4", json.dumps(tool, indent=4, ensure_ascii=False))
        golden = golden.replace(f"{name}_FUNCTION", json.dumps(tool["function"], ensure_ascii=False))
        golden = golden.replace(name, json.dumps(tool, ensure_ascii=False))
    return golden
