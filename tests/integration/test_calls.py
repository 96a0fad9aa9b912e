"""Calls that a template writes are read back as they were, for every template that has a place for them."""

from __future__ import annotations

from typing import Any

import pytest

from lmflow_core.contracts.examples import Message, ToolCall, is_trained
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates import ChatTemplate

CATALOGUE = Catalogue.discover()
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}}}
CALLS = (
    ToolCall("add", {"a": 1, "b": [2.5, None], "c": {"d": 'ü"} </tool_call>'}}),
    ToolCall("my.tool-2", {}),
    ToolCall("add", {"text": "one, two\n{}"}),
)


def _with_tools() -> dict[str, ChatTemplate]:
    loaded = {
        name: CATALOGUE.of(TemplateSpec).load(name)
        for name in map(CATALOGUE.of(TemplateSpec).unambiguous, CATALOGUE.of(TemplateSpec))
    }
    return {n: t.bind("<s>", "</s>") for n, t in loaded.items() if isinstance(t, ChatTemplate) and t.tools}


TEMPLATES = _with_tools()


def _written(template: ChatTemplate, content: str, calls: tuple[ToolCall, ...]) -> str:
    """Return what a model has to write for an answer, up to its stop."""
    answer = Message("assistant", content, tool_calls=calls)
    assert is_trained(answer)
    segments: Any = template.render([Message("user", "hi"), answer], add_generation_prompt=False, tools=[TOOL])
    text = "".join(segment.text for segment in segments if segment.trainable)
    return min((text.split(stop)[0] for stop in template.stop), key=len)


def _no_reasoning(template: ChatTemplate) -> str:
    """Return what a template writes behind a prompt where there is no reasoning."""
    form = template.reasoning
    if form is None or form.closed:
        return ""
    empty = form.text.replace("{content}", "").removeprefix(form.opening)
    return empty if form.opening or form.always else form.without


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_are_read_back(name: str) -> None:
    template = TEMPLATES[name]
    tools: Any = template.tools
    for calls in (CALLS[:1], CALLS[1:2], *([CALLS] if tools.several_calls else [])):
        for content in ("", *(["Let me see."] if tools.content_beside_calls else [])):
            text = _written(template, content, calls)
            assert template.read_calls(text.removeprefix(_no_reasoning(template))) == (content, calls)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_no_call_is_content(name: str) -> None:
    template = TEMPLATES[name]
    text = _written(template, "", CALLS[:1])
    broken = text.replace('"a"', "a") if '"a"' in text else text.replace("a", "<")
    for said in ("", "No need.", text[: len(text) // 2], f"{text} and more", broken):
        assert template.read_calls(said) == (said, ())


@pytest.mark.parametrize("name", [name for name, template in TEMPLATES.items() if template.tools.argument])
def test_a_schema_tells_a_text_from_a_number(name: str) -> None:
    template = TEMPLATES[name]
    properties = {"a": {"type": "string"}, "b": {"type": "integer"}}
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": properties}}}
    call = ToolCall("add", {"a": "12", "b": 12})
    text = _written(template, "", (call,)).removeprefix(_no_reasoning(template))
    assert template.read_calls(text, [tool]) == ("", (call,))


def test_a_template_without_a_place_for_calls_reads_none() -> None:
    plain: ChatTemplate = CATALOGUE.of(TemplateSpec).load("chatml")
    assert plain.read_calls("hello") is None
    assert len(TEMPLATES) >= 10
