"""Conversations of every shape that a template may be given, and what is read from their renderings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmflow_core.contracts.examples import Message, Segment, ToolCall, as_turns
from lmflow_core.templates.sandbox import render_jinja

BOS, EOS = "<s>", "</s>"
ADD: dict[str, Any] = {
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
NOW: dict[str, Any] = {
    "type": "function",
    "function": {"name": "now", "description": "Té", "parameters": {"type": "object", "properties": {}}},
}
TOOLS: tuple[Mapping[str, Any], ...] = (ADD, NOW)

SYSTEM = Message("system", "Be brief.")
ASK, ANSWER = Message("user", "2 + 3?"), Message("assistant", "5")
ASK_MORE, ANSWER_MORE = Message("user", "And 2 * 3?"), Message("assistant", "6")
REASONED = Message("assistant", "5", reasoning="2, 3.")
REASONED_MORE = Message("assistant", "6", reasoning="Twice 3.")
_ADD_CALL, _NOW_CALL = ToolCall("add", {"a": 2, "b": 3}), ToolCall("now", {})
CALL, TWO_CALLS = (Message("assistant", "", tool_calls=calls) for calls in ((_ADD_CALL,), (_ADD_CALL, _NOW_CALL)))
SAY_AND_CALL = Message("assistant", "Let me see.", tool_calls=(_ADD_CALL,))
THINK_AND_CALL = Message("assistant", "", reasoning="Call it.", tool_calls=(_ADD_CALL,))
RESULT, NOON = Message("tool", "5"), Message("tool", '"noon"')

Shape = tuple[tuple[Message, ...], bool, tuple[Mapping[str, Any], ...]]
# What ``render`` is called with.
SHAPES: dict[str, Shape] = {
    "single": ((ASK, ANSWER), False, ()),
    "several": ((ASK, ANSWER, ASK_MORE, ANSWER_MORE), False, ()),
    "system": ((SYSTEM, ASK, ANSWER), False, ()),
    "system, several": ((SYSTEM, ASK, ANSWER, ASK_MORE, ANSWER_MORE), False, ()),
    "prompt": ((ASK,), True, ()),
    "system, prompt": ((SYSTEM, ASK), True, ()),
    "second prompt": ((ASK, ANSWER, ASK_MORE), True, ()),
    "system, second prompt": ((SYSTEM, ASK, ANSWER, ASK_MORE), True, ()),
    "reasoning": ((ASK, REASONED), False, ()),
    "reasoning, several": ((ASK, REASONED, ASK_MORE, REASONED_MORE), False, ()),
    "reasoning, second prompt": ((ASK, REASONED, ASK_MORE), True, ()),
    "reasoning at first": ((ASK, REASONED, ASK_MORE, ANSWER_MORE), False, ()),
    "tools": ((ASK,), True, TOOLS),
    "tools, system": ((SYSTEM, ASK), True, TOOLS),
    "call": ((ASK, CALL), False, TOOLS),
    "result": ((SYSTEM, ASK, CALL, RESULT), True, TOOLS),
    "result, answer": ((SYSTEM, ASK, CALL, RESULT, ANSWER), False, TOOLS),
    "two calls": ((ASK, TWO_CALLS, RESULT, NOON, ANSWER), False, TOOLS),
    "call after call": ((ASK, CALL, RESULT, CALL, RESULT, ANSWER), False, TOOLS),
    "text and call": ((ASK, SAY_AND_CALL, RESULT, ANSWER), False, TOOLS),
    "result, several": ((ASK, CALL, RESULT, ANSWER, ASK_MORE, ANSWER_MORE), False, TOOLS),
    "reasoning and call": ((ASK, THINK_AND_CALL, RESULT, REASONED), False, TOOLS),
    "reasoning and call, prompt": ((ASK, THINK_AND_CALL, RESULT), True, TOOLS),
}
# Contents that templates, Jinja or markup may take for something else.
NASTY = (
    "{{ messages }}",
    "{% raw %}{% endfor %}",
    "{# gone #}",
    "{content} {bos} {eos} {tools}",
    'it\'s "quoted" `so`',
    "back\\slash \\n \\u0041 \\",
    "line\nline\r\nline\ttab",
    "😀 café \u2028 \x85 \x00 \x7f",
    "<b>&amp;</b>",
    "⟦⟧",
)


def text_of(segments: Sequence[Segment]) -> str:
    """Return the text of a rendering."""
    return "".join(segment.text for segment in segments)


def text_or_none(template: Any, shape: Shape) -> str | None:
    """Return the text of a conversation, or None where the template refuses it."""
    try:
        return text_of(template.render(*shape))
    except ValueError:
        return None


def trained_spans(segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return where trained text begins and ends, joined where nothing stands between."""
    spans: list[tuple[int, int]] = []
    position = 0
    for segment in segments:
        end = position + len(segment.text)
        if segment.trainable:
            start = spans.pop()[0] if spans and spans[-1][1] == position else position
            spans.append((start, end))
        position = end
    return spans


def jinja_values(shape: Shape) -> dict[str, Any]:
    """Return the variables of a chat template for a conversation, with :data:`BOS` and :data:`EOS`."""
    messages, prompt, tools = shape
    return {
        "bos_token": BOS,
        "eos_token": EOS,
        "messages": as_turns(messages),
        "tools": [*tools] or None,
        "documents": None,
        "add_generation_prompt": prompt,
    }


def sandboxed(jinja: str, shape: Shape) -> str | None:
    """Return a conversation in Jinja as the sandbox renders it; None where the template refuses it."""
    return render_jinja(jinja, jinja_values(shape))


def by_transformers(jinja: str, shape: Shape) -> str | None:
    """Return a conversation in Jinja as ``apply_chat_template`` renders it; None where the template refuses it."""
    from jinja2 import TemplateError

    messages, prompt, tools = shape
    tokenizer = _tokenizer()
    try:
        text: str = tokenizer.apply_chat_template(
            as_turns(messages),
            tools=[*tools] or None,
            chat_template=jinja,
            add_generation_prompt=prompt,
            tokenize=False,
        )
    except TemplateError:
        return None
    return text


_made: list[Any] = []


def _tokenizer() -> Any:
    if not _made:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        inner: Any = PreTrainedTokenizerFast
        _made.append(inner(tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS, eos_token=EOS))
    return _made[0]


def rendered_shapes(template: Any) -> Iterator[tuple[str, Shape, Sequence[Segment]]]:
    """Yield the shapes that a template has a place for, with their segments."""
    for name, shape in SHAPES.items():
        try:
            segments = template.render(*shape)
        except ValueError:
            continue
        yield name, shape, segments
