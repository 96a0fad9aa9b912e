"""Every template against texts written by hand, its Jinja twin in transformers, and the rules that all keep."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.api import ChatTemplate, Conversation, Message, Segment, ToolCall, is_trained
from lmflow_core.data.encoding import Encoder
from lmflow_core.templates.reasoning import reasoning_marks
from lmflow_core.testing.chats import (
    ADD,
    ANSWER,
    ANSWER_MORE,
    ASK,
    ASK_MORE,
    BOS,
    CALL,
    EOS,
    NASTY,
    NOON,
    NOW,
    REASONED,
    REASONED_MORE,
    RESULT,
    SYSTEM,
    TOOLS,
    TWO_CALLS,
    text_of,
    trained_spans,
)
from lmflow_core.testing.contracts import TemplateContract
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_templates import others, plugin

GOLDEN: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("golden.yaml").read_text(encoding="utf-8"))
CHATS, CALLS, REASONED_CHATS = GOLDEN["chats"], GOLDEN["calls"], GOLDEN["reasoning"]
WITHOUT_SYSTEM = frozenset(("mistral", "gemma", "orion"))


def load(target: str) -> ChatTemplate:
    module, _, attribute = target.partition(":")
    template = getattr(importlib.import_module(module), attribute)
    assert isinstance(template, ChatTemplate)
    return template.bind(BOS, EOS)


TEMPLATES = {spec.name: load(spec.target) for spec in plugin.lmflow_register_templates()}
globals().update({f"Test_{name}": type(f"Test_{name}", (TemplateContract,), {"name": name}) for name in TEMPLATES})


def marked(segments: Sequence[Segment]) -> str:
    """Return the text with ``⟦…⟧`` around what is trained on."""
    written = "".join(f"⟦{segment.text}⟧" if segment.trainable else segment.text for segment in segments)
    return written.replace("⟧⟦", "")


def with_tools_written(golden: str) -> str:
    """Put the JSON of the tools in place of their names."""
    both, each = json.dumps([ADD, NOW], indent=4, ensure_ascii=False), {"ADD": ADD, "NOW": NOW}
    golden = golden.replace("BOTH4", both)
    for name, tool in each.items():
        golden = golden.replace(f"{name}4", json.dumps(tool, indent=4, ensure_ascii=False))
        golden = golden.replace(f"{name}_FUNCTION", json.dumps(tool["function"], ensure_ascii=False))
        golden = golden.replace(name, json.dumps(tool, ensure_ascii=False))
    return golden


def _runtime() -> Any:
    """Return the module whose tokenizer renders Jinja; where the plugin is tested alone, what needs it is left out."""
    return pytest.importorskip("lmflow_transformers.tokenizers", reason="Jinja is rendered by lmflow-transformers")


@functools.cache
def _tokenizer() -> Any:
    runtime = _runtime()
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS, eos_token=EOS)
    return runtime.TransformersTokenizer(inner)


def _jinja(
    template: ChatTemplate, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
) -> str | None:
    """Render the saved Jinja text with ``apply_chat_template``; None when it refuses."""
    text: str | None = _tokenizer().render_chat(messages, prompt, tools, template.to_jinja())
    return text


def test_there_are_lmflows_names_and_todays_families() -> None:
    names = {name for spec in plugin.lmflow_register_templates() for name in (spec.name, *spec.aliases)}
    lmflow = (
        *("chatml", "chatglm3", "deepseek", "deepseek_r1", "deepseek_r1_distill", "deepseek_v2", "deepseek_v3"),
        *("disable", "empty", "empty_no_special_tokens", "gemma", "gemma3", "hymba", "internlm2", "llama2", "llama3"),
        *("llama3_for_tool", "phi3", "qwen2", "qwen2_5", "qwen2_5_1m", "qwen2_5_math", "qwen2_for_tool", "qwen3"),
        *("qwen_qwq", "yi", "yi1_5", "zephyr"),
    )
    assert len(lmflow) == 28
    assert set(lmflow) <= names
    assert len(TEMPLATES) >= 45
    assert set(TEMPLATES) == set(CHATS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_mask_of_a_chat(name: str) -> None:
    messages = (ASK, ANSWER, ASK_MORE, ANSWER_MORE)
    if name not in WITHOUT_SYSTEM:
        messages = (SYSTEM, *messages)
    assert marked(TEMPLATES[name].render(messages, False)) == CHATS[name]


@pytest.mark.parametrize("name", sorted(WITHOUT_SYSTEM))
def test_a_system_prompt_has_no_place_everywhere(name: str) -> None:
    with pytest.raises(ValueError, match=r"^the template has no place for a system message$"):
        TEMPLATES[name].render((SYSTEM, ASK), True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_mask_of_calls(name: str) -> None:
    template = TEMPLATES[name]
    messages = (ASK, CALL, RESULT, ANSWER) if name == "llama3_1" else (ASK, TWO_CALLS, RESULT, NOON, ANSWER)
    if name in CALLS:
        assert marked(template.render(messages, False, TOOLS)) == with_tools_written(CALLS[name])
        return
    assert template.tools is None
    for offered in (TOOLS, ()):
        with pytest.raises(ValueError, match=r"^the template has no place for tools: choose one that has"):
            template.render(messages, False, offered)
    with pytest.raises(ValueError, match=r"^the template has no place for tools: choose one that has"):
        template.render((ASK,), True, TOOLS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_mask_of_reasoning(name: str) -> None:
    template = TEMPLATES[name]
    if name in REASONED_CHATS:
        assert marked(template.render((SYSTEM, ASK, REASONED, ASK_MORE, REASONED_MORE), False)) == REASONED_CHATS[name]
    else:
        assert template.reasoning is None
        assert template.render((ASK, REASONED), False) == template.render((ASK, ANSWER), False)


@pytest.mark.parametrize("name", REASONED_CHATS)
def test_a_content_that_holds_its_reasoning_is_split(name: str) -> None:
    """As a model writes it, and as a chat remembers it."""
    template = TEMPLATES[name]
    assert template.reasoning is not None
    whole = template.render((ASK, REASONED), False)
    prompt = text_of(template.render((ASK,), True)).removesuffix(template.reasoning.closed)
    written = text_of(whole).removeprefix(prompt).split(template.stop[0])[0]
    assert template.render((ASK, Message("assistant", written)), False) == whole


STRIPPED = {
    "llama2": (True, True),
    "llama3": (True, True),
    "llama4": (True, True),
    "gemma3": (False, True),
    "command_r": (False, True),
    "hymba": (True, True),
    "zephyr": (False, False),
    "chatml": (False, False),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_what_is_stripped(name: str) -> None:
    system, user = STRIPPED[name]
    text = text_of(TEMPLATES[name].render((Message("system", " s "), Message("user", " u ")), True))
    assert (" s " not in text, " u " not in text) == (system, user)


def test_a_tokenizer_without_an_end_token_leaves_no_mark() -> None:
    unended = others.ZEPHYR.bind(None, None)
    assert unended.stop == ()
    assert text_of(unended.render((ASK, ANSWER), False)) == "<|user|>\n2 + 3?\n<|assistant|>\n5\n"


_MARKS = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]{3,20}\]|\[\|\w+\|\]|\]~!?b[\]\[]|\[e~\[")
CONTROLS = sorted({mark for template in TEMPLATES.values() for mark in _MARKS.findall(template.to_jinja())})
# A content that holds what closes reasoning is split there, as a model writes both in one.
_CLOSES = {reasoning_marks(template, template.reasoning)[1] for template in TEMPLATES.values() if template.reasoning}
_PLAIN = [mark for mark in CONTROLS if mark not in _CLOSES]
EVERY_CONTROL = " ".join(_PLAIN) + "".join(_PLAIN)


@pytest.mark.parametrize("name", TEMPLATES)
def test_marks_of_all_templates_stay_content(name: str) -> None:
    template = TEMPLATES[name]
    roles = ("user", "assistant") if name in WITHOUT_SYSTEM else ("system", "user", "assistant")
    messages = tuple(Message(role, EVERY_CONTROL) for role in roles)
    segments = template.render(messages, True)
    assert [segment.text for segment in segments if not segment.control] == [EVERY_CONTROL] * len(messages)
    assert _jinja(template, messages, True) == text_of(segments)


@pytest.fixture(scope="module")
def knows_all() -> Any:
    """Return a tokenizer whose control tokens are those of every template, some special and some merely added."""
    runtime = _runtime()
    from tokenizers import AddedToken

    inner = make_tokenizer()
    inner.add_tokens([AddedToken(mark, special=at % 3 != 0, normalized=False) for at, mark in enumerate(CONTROLS)])
    return runtime.TransformersTokenizer(inner)


def _controls(tokenizer: Any, template: ChatTemplate, messages: tuple[Message, ...]) -> list[int]:
    tools = TOOLS if template.tools else ()
    [encoded] = Encoder(tokenizer, template).encode([Conversation(messages, tools)])[0].sequences
    known = set(tokenizer.control_tokens.values())
    return [number for number in encoded.input_ids if number in known]


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_becomes_a_control_token(knows_all: Any, name: str) -> None:
    assert len(CONTROLS) > 60
    template = TEMPLATES[name]
    roles = ("user", "assistant") if name in WITHOUT_SYSTEM else ("system", "user", "assistant")
    plain = tuple(Message(role, "x") for role in roles)
    nasty = tuple(Message(role, EVERY_CONTROL) for role in roles)
    assert _controls(knows_all, template, nasty) == _controls(knows_all, template, plain)
    if template.tools is not None:
        calls = [(ToolCall("f", {"x": text}), Message("tool", text)) for text in ("x", EVERY_CONTROL)]
        called = [
            (*plain[:-1], Message("assistant", "", tool_calls=(call,)), result, plain[-1]) for call, result in calls
        ]
        assert _controls(knows_all, template, called[0]) == _controls(knows_all, template, called[1])


_contents = st.text(max_size=12) | st.sampled_from([*NASTY, *CONTROLS]) | st.sampled_from(["", " ", "\n\n"])
_arguments = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | _contents, max_size=2)


@st.composite
def _turn(draw: st.DrawFn, template: ChatTemplate) -> list[Message]:
    """Draw a question, calls with their results where there is a place for them, and an answer."""
    turn = [Message("user", draw(_contents))]
    tools = template.tools
    if tools and draw(st.booleans()):
        calls = draw(st.lists(st.builds(ToolCall, _contents, _arguments), min_size=1, max_size=1 + tools.several_calls))
        said = draw(_contents) if tools.content_beside_calls else ""
        turn.append(Message("assistant", said, draw(st.none() | _contents), tuple(calls)))
        turn += [Message("tool", draw(_contents)) for _ in calls]
    return [*turn, Message("assistant", draw(_contents), draw(st.none() | _contents))]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[str, tuple[Message, ...], tuple[Mapping[str, Any], ...]]:
    name = draw(st.sampled_from(sorted(TEMPLATES)))
    system = [] if name in WITHOUT_SYSTEM or draw(st.booleans()) else [Message("system", draw(_contents))]
    turns = [message for _ in range(draw(st.integers(1, 3))) for message in draw(_turn(TEMPLATES[name]))]
    return name, (*system, *turns), TOOLS if TEMPLATES[name].tools and draw(st.booleans()) else ()


@settings(max_examples=300, deadline=None)
@given(case=_cases())
def test_rules_that_every_rendering_keeps(
    case: tuple[str, tuple[Message, ...], tuple[Mapping[str, Any], ...]],
) -> None:
    name, messages, tools = case
    template = TEMPLATES[name]
    segments = template.render(messages, False, tools)
    text = text_of(segments)
    assert _jinja(template, messages, False, tools) == text
    assert all(segment.text for segment in segments)

    # A trained answer follows from its prompt, and with its stop is all that is trained on.
    for start, _ in trained_spans(segments):
        assert is_trained(messages[_asked_at(template, messages, text[:start], tools)])
    written = "".join(segment.text for segment in segments if segment.trainable and not segment.control)
    assert len(written) <= sum(_size(message) for message in messages if is_trained(message))


def _asked_at(
    template: ChatTemplate, messages: Sequence[Message], before: str, tools: Sequence[Mapping[str, Any]]
) -> int:
    """Return the answer whose prompt is exactly the text before a trained part."""
    for at, message in enumerate(messages):
        if message.role == "assistant":
            prompt = text_of(template.render(messages[:at], True, tools))
            assert _jinja(template, messages[:at], True, tools) == prompt
            if prompt == before:
                return at
    raise AssertionError(f"no prompt gives {before!r}")


def _size(message: Message) -> int:
    """Return the length of all that an answer is made of; JSON escapes take up to six characters."""
    calls = sum(len(call.name) + len(json.dumps(call.arguments, ensure_ascii=False)) for call in message.tool_calls)
    return len(message.content) + len(message.reasoning or "") + calls + 9 * len(message.tool_calls)


CLOSED = {
    "<think>\nt\n</think>\n\na": ("t", "a"),
    "t </think> a": ("t ", " a"),
    "lost <think>t</think> lost </think>a": ("t", "a"),
    "a <think> b": ("", "a <think> b"),
}


@pytest.mark.parametrize("name", ["qwen3", "smollm3"])
@pytest.mark.parametrize("content", CLOSED)
def test_an_assistants_content_that_closes_reasoning_is_split_there_and_no_other(name: str, content: str) -> None:
    """As the models' own templates do: an answer that the model wrote comes back as it was."""
    reasoning, answer = CLOSED[content]
    template = TEMPLATES[name]
    messages = (Message("user", content), Message("assistant", content))
    texts = [segment.text for segment in template.render(messages, False) if not segment.control]
    assert texts[-2:] == ([reasoning, answer] if reasoning else [content, answer])
    assert content in texts  # the user's is whole
