"""A template as data: what it refuses, how it is bound, and that any text in it survives the way through Jinja."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmflow_core.contracts.examples import ImagePart, Message, Segment, ToolCall
from lmflow_core.templates import ChatTemplate, Reasoning, Tools
from lmflow_core.templates.patterns import slots

SYSTEM, USER, ASSISTANT = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
PLAIN = ChatTemplate(user="U:{content};", assistant="{content}.", assistant_header="A:", stop=(".",))


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _part(part: str | ImagePart) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.source}


def _jinja(
    template: ChatTemplate,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
    image: str = "",
    **given: bool,
) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    turns = [
        {
            "role": message.role,
            "content": message.content if isinstance(message.content, str) else [*map(_part, message.content)],
            "reasoning_content": message.reasoning,
            "tool_calls": [{"function": {"name": c.name, "arguments": c.arguments}} for c in message.tool_calls],
        }
        for message in messages
    ]
    compiled = environment.from_string(template.to_jinja(image))
    return compiled.render(messages=turns, add_generation_prompt=add_generation_prompt, tools=tools, **given)


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


ASK, CALL = Message("user", "u"), Message("assistant", "", tool_calls=(ToolCall("f", {"x": "é"}), ToolCall("g", {})))
RESULTS = (Message("tool", "1"), Message("tool", '"2"'))
TOOLS = ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}})
DECLARED = (
    {"type": "function", "function": {"name": "f", "description": " é\n", "strict": True, "parameters": {
        "type": "object", "required": ["x"],
        "properties": {"x": {"type": "string", "enum": ["a"], "description": "d "}, "y": {"default": 1.5}}}}},
    {"name": "g", "parameters": None},
    {"function": {"description": 1, "parameters": {"properties": {"x": True}, "required": None}}},
)  # fmt: skip
CALLING = Tools(
    system="S:{content}[{tools}]|", system_alone="[{tools}]|", tool="<{tool}>", call="!{name}({arguments})#{id}",
    between_calls=",", calls="({calls})", before_calls=" ", result="{id}={json};", results="R{results}/",
)  # fmt: skip
WITH_TOOLS = replace(PLAIN, system="S:{content}|", tools=CALLING)


def _marked(segments: Sequence[Segment]) -> str:
    return "".join(f"⟦{segment.text}⟧" if segment.trainable else segment.text for segment in segments).replace("⟧⟦", "")


def test_tools_calls_and_results() -> None:
    offered = '<{"type": "function", "function": {"name": "f"}}><{"type": "function", "function": {"name": "g"}}>'
    messages = (ASK, CALL, *RESULTS, replace(CALL, content="c"), RESULTS[0], ASSISTANT)
    assert _marked(WITH_TOOLS.render(messages, False, TOOLS)) == (
        f'[{offered}]|U:u;A:⟦(!f({{"x": "é"}})#000000001,!g({{}})#000000002).⟧R000000001="1";000000002="\\"2\\"";/'
        'A:⟦c (!f({"x": "é"})#000000003,!g({})#000000004).⟧R000000003="1";/A:⟦a.⟧'
    )
    assert _marked(WITH_TOOLS.render((SYSTEM, ASK), True, TOOLS)) == f"S:s[{offered}]|U:u;A:"
    assert _marked(WITH_TOOLS.render((SYSTEM, ASK), True)) == "S:s|U:u;A:"


def test_what_tools_have_no_place_for() -> None:
    one = replace(WITH_TOOLS, tools=replace(CALLING, several_calls=False, content_beside_calls=False))
    with pytest.raises(ValueError, match=r"^the template has no place for several calls in one turn$"):
        one.render((ASK, CALL), False)
    with pytest.raises(ValueError, match=r"^the template has no place for a text beside a call of a tool$"):
        one.render((ASK, replace(CALL, content="c")), False)
    for messages in ((ASK, CALL), (ASK, replace(CALL, content="c"))):
        with pytest.raises(TemplateError, match=r"^no place for "):
            _jinja(one, messages, False)
    with pytest.raises(TemplateError, match=r"^no place for tools$"):
        _jinja(PLAIN, (ASK,), True, TOOLS)
    with pytest.raises(TemplateError, match=r"^no place for calls of tools$"):
        _jinja(PLAIN, (ASK, CALL), False)


REASONING = replace(PLAIN, reasoning=Reasoning(text="({content}) "))
REASONED = Message("assistant", "a", reasoning="t")
THINKS = {
    "where there are any": (REASONING, "U:u;A:a.U:u;A:⟦(t) a.⟧", "U:u;A:⟦a.⟧"),
    "always": (replace(REASONING, reasoning=Reasoning(text="({content}) ", always=True)),
               "U:u;A:a.U:u;A:⟦(t) a.⟧", "U:u;A:⟦() a.⟧"),
    "opened by the prompt": (replace(REASONING, reasoning=Reasoning(text="({content}) ", opening="(")),
                             "U:u;A:a.U:u;A:(⟦t) a.⟧", "U:u;A:(⟦) a.⟧"),
    "kept": (replace(REASONING, reasoning=Reasoning(text="({content}) ", keep=True)),
             "U:u;A:⟦(t) a.⟧U:u;A:⟦(t) a.⟧", "U:u;A:⟦a.⟧"),
}  # fmt: skip


@pytest.mark.parametrize("case", THINKS)
def test_reasoning_and_what_is_trained_without_it(case: str) -> None:
    template, several, none = THINKS[case]
    assert _marked(template.render((ASK, REASONED, ASK, REASONED), False)) == several
    assert _marked(template.render((ASK, ASSISTANT), False)) == none
    single = template.render((ASK, REASONED), False)
    assert _marked(single) == f"U:u;{several.split('U:u;')[2]}"
    # A content that holds both, as a model writes it, is split.
    assert template.render((ASK, Message("assistant", "(t)\na")), False) == single


SINGLY = replace(
    WITH_TOOLS,
    tools=Tools(
        system="{content}{tools}", tool="{elements}", call="{name}:{index}({arguments})", argument="{key}={value}",
        text_argument="{key}='{value}'", between_arguments=", ", python_values=True, escaped_texts=True,
        result="{name}:{index}={content};",
    ),
)  # fmt: skip


def test_arguments_one_by_one_and_results_that_name_their_call() -> None:
    calls = (ToolCall("f", {"a": "it's\n", "b": None, "c": [True], "d": 2}), ToolCall("g", {}))
    messages = (ASK, Message("assistant", "", tool_calls=calls), *RESULTS, Message("tool", "3"), ASSISTANT)
    assert _marked(SINGLY.render(messages, False)) == (
        "U:u;A:⟦f:0(a='it\\'s\\n', b=None, c=[true], d=2)g:1().⟧f:0=1;g:1=\"2\";:2=3;A:⟦a.⟧"
    )
    assert SINGLY.read_calls("f:0(a='it\\'s\\n', b=None, c=[true], d=2)g:1()") == ("", calls)


def test_tools_as_elements() -> None:
    [function, bare, odd, _] = _marked(SINGLY.render((ASK,), True, DECLARED)).split("</function>")
    assert function == (
        "<function>\n<name>f</name>\n<description>é</description>\n<parameters>"
        "\n<parameter>\n<name>x</name>\n<type>string</type>\n<description>d</description>"
        '\n<enum>["a"]</enum>\n</parameter>'
        "\n<parameter>\n<name>y</name>\n<default>1.5</default>\n</parameter>"
        '\n<required>["x"]</required>\n</parameters>\n<strict>True</strict>\n'
    )
    assert bare == "<function>\n<name>g</name>\n<parameters>\n</parameters>\n"
    assert odd == (
        "<function>\n<name></name>\n<description>1</description>\n<parameters>\n<parameter>\n<name>x</name>"
        "\n</parameter>\n<required>None</required>\n</parameters>\n"
    )
    calls = "f:0(x='a', y=1)"
    assert SINGLY.read_calls(calls, DECLARED) == ("", (ToolCall("f", {"x": "a", "y": 1}),))


def test_a_system_turn_of_its_own_where_none_is_given_and_an_empty_one_that_counts_as_none() -> None:
    template = replace(WITH_TOOLS, system_alone="none|", empty_system=False)
    empty = Message("system", "")
    for messages in ((ASK,), (empty, ASK)):
        assert _marked(template.render(messages, True)) == "none|U:u;A:"
    assert _marked(template.render((SYSTEM, ASK), True)) == "S:s|U:u;A:"
    assert _marked(template.render((empty, ASK), True, TOOLS)).startswith("S:[")


def test_an_answer_behind_a_call_whose_reasoning_is_left_out_is_not_trained_on() -> None:
    """When it was written, the reasoning before the call stood in its prompt."""
    template = replace(WITH_TOOLS, reasoning=Reasoning(text="({content}) "))
    call = replace(CALL, reasoning="t")
    turn = (ASK, call, RESULTS[0], ASSISTANT)
    assert _marked(template.render(turn, False)).endswith("A:⟦a.⟧")
    assert "⟦" not in _marked(template.render((*turn, ASK), True))
    assert _marked(template.render((*turn, ASK, ASSISTANT), False)).count("⟦") == 1


@pytest.mark.parametrize(("asked", "given", "prompt"), [
    ({"opening": "("}, {}, "("), ({"opening": "("}, {"enable_thinking": False}, "off"),
    ({"closed": "()"}, {}, "()"), ({"closed": "()"}, {"enable_thinking": True}, "on"),
    ({}, {"enable_thinking": False}, "off"),
])  # fmt: skip
def test_thinking_is_switched_in_jinja(asked: dict[str, str], given: dict[str, bool], prompt: str) -> None:
    template = replace(PLAIN, reasoning=Reasoning(text="({content})", off="off", on="on", **asked))
    assert _jinja(template, (ASK,), True, **given) == f"U:u;A:{prompt}"


def test_a_prompt_that_closes_reasoning() -> None:
    template = replace(PLAIN, reasoning=Reasoning(text="({content})", closed="()"))
    assert _marked(template.render((ASK,), True)) == "U:u;A:()"
    assert _marked(template.render((ASK, ASSISTANT, ASK, ASSISTANT), False)) == "U:u;A:a.U:u;A:()⟦a.⟧"
    assert _marked(template.render((ASK, REASONED), False)) == "U:u;A:(t)a."


def test_reasoning_and_arguments_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match=r"^a prompt cannot open reasoning and close it: '\(', '\(\)'$"):
        Reasoning(text="({content})", opening="(", closed="()")
    with pytest.raises(ValueError, match=r"^'text_argument' of a template needs an 'argument'"):
        Tools(call="{name}{arguments}", result="{content}", text_argument="{key}{value}")
    with pytest.raises(ValueError, match=r"^'argument' of a template must hold {key} and {value}, once: "):
        Tools(call="{name}{arguments}", result="{content}", argument="{key}")
    with pytest.raises(ValueError, match=r"^'system_alone' of a template must hold no slot, once: "):
        replace(PLAIN, system_alone="{content}")


PICTURE = ImagePart("a.png")


def _shown_text(segments: Sequence[Segment]) -> str:
    return "".join("<i>" if segment.image else segment.text for segment in segments)


def test_images_stand_where_the_user_puts_them() -> None:
    messages = (Message("user", ("u", PICTURE, "v", PICTURE)), ASSISTANT)
    segments = PLAIN.render(messages, False)
    assert [segment.image or segment.text for segment in segments] == [
        "U:",
        "u",
        PICTURE,
        "v",
        PICTURE,
        ";",
        "A:",
        "a",
        ".",
    ]
    assert all(segment == Segment("", image=PICTURE) for segment in segments if segment.image)
    assert _jinja(PLAIN, messages, False) == "U:uv;A:a."
    assert _jinja(PLAIN, messages, False, image="<i>") == "U:u<i>v<i>;A:a."
    trained = PLAIN.render((replace(messages[0], train=True), ASSISTANT), False)
    assert [(s.text or s.image, s.trainable) for s in trained[:5]] == [
        ("U:", False),
        ("u", True),
        (PICTURE, False),
        ("v", True),
        (PICTURE, False),
    ]


def test_a_content_of_texts_alone_is_a_text() -> None:
    parts, joined = ((Message("user", content), ASSISTANT) for content in (("u", "v"), "uv"))
    assert _marked(PLAIN.render(parts, False)) == _marked(PLAIN.render(joined, False))
    answers = [(ASK, Message("assistant", content)) for content in (("(t)", "\na"), "(t)\na")]
    assert REASONING.render(answers[0], False) == REASONING.render(answers[1], False)


def test_white_space_is_stripped_at_the_ends_of_a_text_with_images() -> None:
    template = replace(PLAIN, strip=("user",))
    messages = (Message("user", (" ", PICTURE, " u ", PICTURE, " v ", " ", PICTURE)), ASSISTANT)
    assert _shown_text(template.render(messages, False)) == "U:<i> u <i> v  <i>;A:a."
    assert _jinja(template, messages, False, image="<i>") == "U:<i> u <i> v  <i>;A:a."
    messages = (Message("user", (" ", " u ", PICTURE, " v ", " ")), ASSISTANT)
    assert _shown_text(template.render(messages, False)) == "U:u <i> v;A:a."
    assert _jinja(template, messages, False, image="<i>") == "U:u <i> v;A:a."


def test_an_image_may_stand_before_a_stop_that_the_next_turn_begins_with() -> None:
    template = ChatTemplate(user="{content}<u>", assistant="-{content}", stop=("<u>",), end="<u>")
    shown = template.render((ASK, ASSISTANT, Message("user", (PICTURE,)), ASSISTANT), False)
    assert _marked(shown) == "u<u>⟦-a⟧<u>⟦-a<u>⟧"


def test_an_answer_may_be_stopped_by_the_next_turn() -> None:
    template = ChatTemplate(user="<u>{content}", assistant="-{content}", stop=("<u>",), end="<u>!")
    assert _marked(template.render((ASK, ASSISTANT, ASK, ASSISTANT), False)) == "<u>u⟦-a<u>⟧u⟦-a<u>⟧!"
    untrained = replace(ASSISTANT, train=False)
    assert _marked(template.render((ASK, untrained, ASK, ASSISTANT), False)) == "<u>u-a<u>u⟦-a<u>⟧!"


def test_earlier_answers_may_end_otherwise() -> None:
    template = replace(PLAIN, assistant_earlier="{content},")
    assert _marked(template.render((ASK, ASSISTANT, ASK, ASSISTANT), False)) == "U:u;A:⟦a⟧,U:u;A:⟦a.⟧"
    assert _marked(template.render((ASK, ASSISTANT, ASK), True)) == "U:u;A:⟦a⟧,U:u;A:"


def test_the_fingerprint_covers_every_field_and_what_is_bound() -> None:
    templates = [PLAIN, WITH_TOOLS, REASONING, replace(PLAIN, end="{eos}"), replace(PLAIN, end="{eos}").bind(None, "e")]
    assert len({template.fingerprint for template in templates}) == 5
    assert replace(PLAIN, end="{eos}").bind("b", "e").fingerprint == templates[4].fingerprint


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
    around = st.lists(_texts, max_size=3).map("".join).filter(lambda text: not slots(text))
    pattern = draw(around) + "{content}" + draw(around)
    return pattern if slots(pattern) == ["content"] else "{content}"


def _filled(*wanted: str) -> st.SearchStrategy[str]:
    """Return texts with each of the slots once, in order."""
    around = _texts.filter(lambda text: "{" not in text)
    return st.tuples(*(around for _ in range(len(wanted) + 1))).map(
        lambda texts: texts[0] + "".join(slot + text for slot, text in zip(wanted, texts[1:], strict=True))
    )


_argument = _filled("{key}", "{value}")
_singly = st.fixed_dictionaries(
    {
        "argument": _argument,
        "text_argument": st.none() | _argument,
        "between_arguments": _texts,
        "python_values": st.booleans(),
        "escaped_texts": st.booleans(),
    }
)
_tools = st.builds(
    lambda singly, **fields: Tools(**fields, **singly),
    singly=st.just({}) | _singly,
    call=_filled("{name}", "{arguments}") | _filled("{name}", "{id}", "{arguments}") | _filled("{arguments}", "{name}"),
    result=_filled("{content}") | _filled("{id}", "{json}") | _filled("{name}", "{index}", "{content}"),
    empty_system=st.booleans(),
    system=st.none() | _filled("{content}", "{tools}") | _filled("{content}"),
    system_alone=st.none() | _filled("{tools}"),
    default_system=st.none() | _texts,
    user=st.none() | _filled("{tools}", "{content}"),
    tool=st.none() | _filled("{tool}") | _filled("{function}") | _filled("{elements}"),
    indent=st.none() | st.just(2),
    between_calls=_texts,
    calls=_filled("{calls}"),
    before_calls=_texts,
    turn=st.none() | _filled("{calls}"),
    results=_filled("{results}"),
)
_reasoning = st.builds(
    lambda asked, **fields: Reasoning(**fields, **asked),
    text=_filled("{content}").map(lambda text: f"<think>{text}</think>"),
    asked=st.sampled_from([{}, {"opening": "<think>"}, {"closed": "<think></think>"}]),
    strip=st.sampled_from(["\n", "", None]),
    without=st.sampled_from(["", "</think>", "<think></think>"]),
    off=st.none() | _texts,
    always=st.booleans(),
    keep=st.booleans(),
)
_templates = st.builds(
    ChatTemplate,
    begin=_texts,
    system=_turns(),
    user=_turns(),
    assistant=_turns(),
    assistant_header=_texts,
    assistant_earlier=st.none() | _turns(),
    assistant_end=_texts,
    end=_texts,
    reasoning=st.none() | _reasoning,
    tools=st.none() | _tools,
    stop=st.just(("x",)),
    default_system=st.none() | _texts,
    system_alone=st.none() | _texts,
    empty_system=st.booleans(),
    system_in_user=st.booleans(),
    strip=st.sets(st.sampled_from(["system", "user", "assistant"])).map(tuple),
)


_values = _texts | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.lists(_texts, max_size=2)
_calls = st.lists(st.builds(ToolCall, _texts, st.dictionaries(_texts, _values, max_size=2)), min_size=1, max_size=2)


_images = st.builds(ImagePart, st.sampled_from(["a.png", "b.png"]))
_shown = st.lists(_texts | _images, max_size=4).map(tuple)


@st.composite
def _conversations(draw: st.DrawFn, tools: bool) -> list[Message]:
    messages = [Message("system", draw(_texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(_texts | _shown)))
        if tools and draw(st.booleans()):
            calls = draw(_calls)
            messages.append(Message("assistant", draw(_texts), draw(st.none() | _texts), tuple(calls)))
            results = st.integers(1, len(calls) + 1)  # one may be missing, or there may be one more
            messages += [Message("tool", draw(_texts)) for _ in range(draw(results))]
        answer = st.sampled_from(["", "<think>t</think>\n\na", "t</think>"]) | _texts
        messages.append(Message("assistant", draw(answer), draw(st.none() | _texts)))
    return messages[: len(messages) - draw(st.booleans())]


@settings(max_examples=300, deadline=None)
@given(template=_templates, data=st.data())
def test_any_template_renders_alike_in_jinja(template: ChatTemplate, data: Any) -> None:
    messages = data.draw(_conversations(template.tools is not None))
    tools = data.draw(st.sampled_from([(), TOOLS, DECLARED])) if template.tools is not None else ()
    prompt = data.draw(st.booleans())
    segments = template.render(messages, prompt, tools)
    assert _jinja(template, messages, prompt, tools, image="<i>") == _shown_text(segments)
