"""A template as data: what it refuses, how it is bound, and that any text in it survives the way through Jinja."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmflow_core.conversations import Message, Segment
from lmflow_core.templates import ChatTemplate

SYSTEM, USER, ASSISTANT = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
PLAIN = ChatTemplate(user="U:{content};", assistant="{content}.", assistant_header="A:", stop=(".",))


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _jinja(template: ChatTemplate, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    turns = [{"role": message.role, "content": message.content} for message in messages]
    compiled = environment.from_string(template.to_jinja())
    return compiled.render(messages=turns, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize("turn", ["no slot", "{content}{content}", "{ content }", ""])
@pytest.mark.parametrize("field", ["user", "assistant", "system"])
def test_a_turn_holds_its_content_once(field: str, turn: str) -> None:
    turns = {"user": "{content}", "assistant": "{content}", "system": "{content}", field: turn}
    with pytest.raises(ValueError, match=rf"^'{field}' of a template must hold \{{content\}}, once: ") as caught:
        ChatTemplate(**turns, stop=())  # type: ignore[arg-type]
    assert str(caught.value).endswith(repr(turn))


def test_segments_tell_what_is_whose() -> None:
    template = ChatTemplate(
        begin="<", system="S:{content}|", user="U:{content};", assistant_header="A:", assistant="-{content}.",
        assistant_end=">", stop=(".",),
    )  # fmt: skip
    assert template.render((SYSTEM, USER, ASSISTANT), add_generation_prompt=True) == (
        Segment("<", control=True),
        Segment("S:", control=True),
        Segment("s"),
        Segment("|", control=True),
        Segment("U:", control=True),
        Segment("u"),
        Segment(";", control=True),
        Segment("A:", control=True),
        Segment("-", trainable=True, control=True),
        Segment("a", trainable=True),
        Segment(".", trainable=True, control=True),
        Segment(">", control=True),
        Segment("A:", control=True),
    )


def test_a_system_message_needs_a_place() -> None:
    with pytest.raises(ValueError, match=r"^the template has no place for a system message$"):
        PLAIN.render((SYSTEM, USER), add_generation_prompt=True)
    with pytest.raises(TemplateError, match=r"^no place for a system message$"):
        _jinja(PLAIN, (SYSTEM, USER), True)


REFUSED: dict[str, tuple[tuple[Message, ...], str]] = {
    "nothing": ((), "the conversation is empty"),
    "the system alone": ((SYSTEM,), "the conversation is empty"),
    "an unknown role": ((USER, Message("bot", "t")), "unknown role 'bot'; roles are system, user, assistant, tool"),
    "the assistant first": ((ASSISTANT, USER), "turn 1 comes from 'assistant' where 'user' is due"),
    "the user twice": ((USER, ASSISTANT, USER, USER), "turn 4 comes from 'user' where 'assistant' is due"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_turns_out_of_order_are_refused(name: str) -> None:
    messages, problem = REFUSED[name]
    with pytest.raises(ValueError, match=f"^{problem}"):
        PLAIN.render(messages, add_generation_prompt=True)


def test_jinja_refuses_an_unknown_role() -> None:
    with pytest.raises(TemplateError, match=r"^unexpected role: tool$"):
        _jinja(PLAIN, (USER, Message("tool", "t")), False)


def test_binding_fills_in_the_tokens_of_a_tokenizer_and_nothing_else() -> None:
    template = ChatTemplate(
        begin="{bos}", system="{content}{eos}", user="{bos}{content}", assistant="{content}{eos}",
        assistant_header="{bos}>", assistant_end="{eos}\n", stop=("{eos}", "STOP"), default_system="{bos} stays",
    )  # fmt: skip
    bound = template.bind("<b>", "<e>")
    assert bound == ChatTemplate(
        begin="<b>", system="{content}<e>", user="<b>{content}", assistant="{content}<e>",
        assistant_header="<b>>", assistant_end="<e>\n", stop=("<e>", "STOP"), default_system="{bos} stays",
    )  # fmt: skip
    bare = template.bind(None, None)
    assert (bare.begin, bare.user, bare.assistant, bare.stop) == ("", "{content}", "{content}", ("STOP",))


_texts = st.text(max_size=8) | st.sampled_from(
    [
        "\n",
        "\\",
        "\\n",
        "'",
        '"',
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-%}",
        "😀",
        "\x00",
        "\u2028",
        "\r\n",
        "none",
        " ",
    ]
)


@st.composite
def _turns(draw: st.DrawFn) -> str:
    around = st.lists(_texts, max_size=3).map("".join).filter(lambda text: "{content}" not in text)
    pattern = draw(around) + "{content}" + draw(around)
    return pattern if pattern.count("{content}") == 1 else "{content}"


_templates = st.builds(
    ChatTemplate,
    begin=_texts,
    system=_turns(),
    user=_turns(),
    assistant=_turns(),
    assistant_header=_texts,
    assistant_end=_texts,
    stop=st.just(("x",)),
    default_system=st.none() | _texts,
    system_in_user=st.booleans(),
    strip=st.sets(st.sampled_from(["system", "user", "assistant"])).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(
    template=_templates, contents=st.lists(_texts, min_size=2, max_size=6), system=st.none() | _texts, data=st.data()
)
def test_any_template_renders_alike_in_jinja(
    template: ChatTemplate, contents: list[str], system: str | None, data: Any
) -> None:
    turns = [Message(("user", "assistant")[at % 2], content) for at, content in enumerate(contents)]
    messages = ([] if system is None else [Message("system", system)]) + turns
    prompt = data.draw(st.booleans())
    segments = template.render(messages, prompt)
    assert _jinja(template, messages, prompt) == "".join(segment.text for segment in segments)
