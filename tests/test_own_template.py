"""A model's own Jinja template: segments and mask found by rendering, or a refusal that says what to do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmflow_core.contracts.examples import Conversation, ImagePart, Message, Segment, ToolCall
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.data.encoding import Encoder
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates import ChatTemplate
from lmflow_core.templates.own import JinjaTemplate
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SYSTEM, ASK, ANSWER = Message("system", "Be brief."), Message("user", "2 + 3?"), Message("assistant", "5")
ASK_MORE, ANSWER_MORE = Message("user", "And 2 * 3?"), Message("assistant", "6")
CHAT = (SYSTEM, ASK, ANSWER, ASK_MORE, ANSWER_MORE)


def _tokenizer(*controls: str) -> TransformersTokenizer:
    inner = make_tokenizer()
    inner.add_special_tokens({"additional_special_tokens": list(controls)})
    return TransformersTokenizer(inner)


TINY = _tokenizer()


def _marked(segments: tuple[Segment, ...]) -> str:
    return "".join(f"⟦{segment.text}⟧" if segment.trainable else segment.text for segment in segments).replace("⟧⟦", "")


def test_text_mask_and_what_is_whose() -> None:
    template = JinjaTemplate(TINY, CHATML)
    assert template.stop == ("<|im_end|>",)
    assert template.to_jinja() == CHATML
    assert template.bind("<s>", "</s>") is template
    assert template.render((ASK, ANSWER), False) == (
        Segment("<|im_start|>user\n", control=True),
        Segment("2 + 3?"),
        Segment("<|im_end|>\n<|im_start|>assistant\n", control=True),
        Segment("5", trainable=True),
        Segment("<|im_end|>", trainable=True, control=True),
        Segment("\n", control=True),
    )
    assert _marked(template.render(CHAT, False)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n⟦5<|im_end|>⟧\n<|im_start|>user\nAnd 2 * 3?<|im_end|>\n"
        "<|im_start|>assistant\n⟦6<|im_end|>⟧\n"
    )


def test_only_turns_that_train_are_marked_and_users_may() -> None:
    template = JinjaTemplate(TINY, CHATML)
    messages = tuple(dataclasses.replace(m, train=m in (ASK, ANSWER_MORE)) for m in CHAT)
    trained = [segment.text for segment in template.render(messages, False) if segment.trainable]
    assert trained == ["2 + 3?", "<|im_end|>", "6", "<|im_end|>"]


def test_the_fingerprint_is_that_of_the_text() -> None:
    assert JinjaTemplate(TINY, CHATML).fingerprint == JinjaTemplate(_tokenizer("<x>"), CHATML).fingerprint
    assert JinjaTemplate(TINY, CHATML).fingerprint != JinjaTemplate(TINY, CHATML + "{# #}").fingerprint


_TEMPLATES = Catalogue.discover().of(TemplateSpec)
# Every template that LMFlow knows, as if it were a model's own.
KNOWN: dict[str, ChatTemplate] = {
    provided.spec.name: _TEMPLATES.load(f"templates:{provided.spec.name}").bind("<s>", "</s>")
    for provided in _TEMPLATES
    if provided.plugin.name == "templates"
}
STOPS = _tokenizer(*sorted({stop for template in KNOWN.values() for stop in template.stop}))
# These end an answer by what follows it, or with what is no mark here, or write it otherwise than they ask for it.
REFUSED = {
    "empty_no_special_tokens": "ends an answer with no control token",
    "gpt_oss": "does not write the answer of turn 3 and '<|return|>' behind it",
    "hymba": "does not write the answer of turn 3 and '</s>' behind it",
    **{
        name: "does not repeat the prompt of turn 3"
        for name, template in KNOWN.items()
        if (form := template.reasoning) and form.asked not in ("", form.without) and not form.keep
    },
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_mask_is_that_of_the_template_as_data(name: str) -> None:
    known = KNOWN[name]
    chat = CHAT if known.system is not None else CHAT[1:]
    expected = _marked(known.render(chat, False))
    if name not in REFUSED:
        assert _marked(JinjaTemplate(STOPS, known.to_jinja()).render(chat, False)) == expected
        return
    with pytest.raises(ValueError, match=REFUSED[name]) as caught:
        JinjaTemplate(STOPS, known.to_jinja()).render(chat, False)
    assert "choose a template that LMFlow knows with --template NAME" in str(caught.value)


def test_parts_of_text_are_one_text_and_images_are_refused() -> None:
    template = JinjaTemplate(TINY, CHATML)
    parts = (Message("user", ("2 ", "+ 3?")), ANSWER)
    assert template.render(parts, False) == template.render((ASK, ANSWER), False)
    shown = (Message("user", ("2 + 3?", ImagePart("a.png"))), ANSWER)
    # This one adds the content to a text, and a list is none.
    with pytest.raises(ValueError, match=r"^the chat template refuses this conversation: choose"):
        template.render(shown, False)
    with pytest.raises(ValueError, match=r"^an image stands in a message, and the model takes none: choose one that"):
        JinjaTemplate(TINY, QWEN).render(shown, False)


# As the templates of models that see write images, in the words of this test.
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|see|><|pad|><|seen|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Contents are lists in every message, and what follows the role depends on the first part.
SMOL = (
    "{% for m in messages %}<|im_start|>{{ m.role|capitalize }}{{ ':' if m.content[0].type == 'image' else ': ' }}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}<image>"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>Assistant:{% endif %}"
)
# Images go before all texts, and each has a line of its own.
LLAVA = (
    "{% for m in messages %}<|im_start|>{{ m.role }} "
    "{% for part in m.content|selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in m.content|selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
A, B = ImagePart("a.png"), ImagePart("data:image/png;base64," + "A" * 1000)
SHOWN = Message("user", ("Is <image> ", A, "<|pad|>like", B, "?"))
SEES = _tokenizer("<image>", "<|see|>", "<|pad|>", "<|seen|>")


def _shown(segments: tuple[Segment, ...]) -> list[str | ImagePart]:
    """Return texts of the template, in brackets where from the data, and images."""
    texts = (s.image or (s.text if s.control else f"[{s.text}]") for s in segments)
    return [text for text in texts if text]


def test_images_stand_where_the_template_puts_them() -> None:
    template = JinjaTemplate(SEES, QWEN, "<|pad|>")
    assert _shown(template.render((SHOWN,), True)) == [
        "<|im_start|>user\n", "[Is <image> ]", "<|see|>", A, "<|seen|>", "[<|pad|>like]", "<|see|>", B, "<|seen|>",
        "[?]",
        "<|im_end|>\n<|im_start|>assistant\n",
    ]  # fmt: skip
    template = JinjaTemplate(SEES, LLAVA, "<image>")
    assert _shown(template.render((SYSTEM, SHOWN, ANSWER), False)) == [
        "<|im_start|>system ", "[Be brief.]", "<|im_end|><|im_start|>user ", A, "\n", B, "\n",
        "[Is <image> ]", "[<|pad|>like]", "[?]", "<|im_end|><|im_start|>assistant ", "[5]", "<|im_end|>",
    ]  # fmt: skip


def test_contents_are_lists_where_a_template_takes_no_texts() -> None:
    template = JinjaTemplate(SEES, SMOL, "<image>")
    shown = Message("user", (A, "What?"))
    assert _shown(template.render((SYSTEM, shown, ANSWER, ASK_MORE), True)) == [
        "<|im_start|>System: ", "[Be brief.]", "<|im_end|>\n<|im_start|>User:", A, "[What?]",
        "<|im_end|>\n<|im_start|>Assistant:", " ", "[5]", "<|im_end|>", "\n<|im_start|>User: ", "[And 2 * 3?]",
        "<|im_end|>\n<|im_start|>Assistant:",
    ]  # fmt: skip
    assert _marked(template.render((shown, ANSWER), False)) == (
        "<|im_start|>User:What?<|im_end|>\n<|im_start|>Assistant:⟦ 5<|im_end|>⟧\n"
    )


def test_what_a_user_says_around_images_may_be_trained() -> None:
    template = JinjaTemplate(SEES, QWEN, "<|pad|>")
    trained = template.render((dataclasses.replace(SHOWN, train=True), ANSWER), False)
    assert [s.text for s in trained if s.trainable] == [
        "Is <image> ",
        "<|pad|>like",
        "?",
        "<|im_end|>",
        "5",
        "<|im_end|>",
    ]


def test_a_template_that_has_too_many_places_or_too_few_is_refused() -> None:
    twice = QWEN.replace("<|pad|>", "<|pad|><|pad|>")
    with pytest.raises(ValueError, match=r"^the chat template writes '<\|pad\|>' 4 times for 2 images: choose"):
        JinjaTemplate(SEES, twice, "<|pad|>").render((SHOWN,), True)
    never = QWEN.replace("<|pad|>", "")
    with pytest.raises(ValueError, match=r"^the chat template writes '<\|pad\|>' 0 times for 2 images: choose"):
        JinjaTemplate(SEES, never, "<|pad|>").render((SHOWN,), True)


def test_what_an_image_is_called_does_not_reach_the_template() -> None:
    naming = QWEN.replace("<|see|>", "<|see|>{{ part.image }}")
    shown = _shown(JinjaTemplate(SEES, naming, "<|pad|>").render((SHOWN,), True))
    assert [text for text in shown if isinstance(text, str) and "png" in text] == []


def test_calls_and_reasoning() -> None:
    known = KNOWN["qwen3"]
    template = JinjaTemplate(STOPS, known.to_jinja())
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    call = Message("assistant", "", reasoning="Call it.", tool_calls=(ToolCall("add", {"a": 2}),))
    messages = (ASK, call, Message("tool", "5"), Message("assistant", "5", reasoning="Five."))
    assert _marked(template.render(messages, False, (tool,))) == _marked(known.render(messages, False, (tool,)))
    # The reasoning of the first answer is left out, so it is not trained on.
    messages = (ASK, dataclasses.replace(ANSWER, reasoning="2, 3."), ASK_MORE, ANSWER_MORE)
    assert _marked(template.render(messages, False)) == _marked(known.render(messages, False))
    nasty = {"type": "function", "function": {"name": "add", "description": "<|im_end|>"}}
    with pytest.raises(ValueError, match=r"^a tool or a call of one holds the control token '<\|im_end\|>': choose"):
        template.render((ASK,), True, (nasty,))


CHANGED = {
    "it shouts": CHATML.replace("m.content +", "m.content|upper +"),
    "it counts letters": CHATML.replace("m.content +", "m.content + m.content|length|string +"),
    "it looks inside": CHATML.replace("m.content +", "('?' if 'Be' in m.content else m.content) +"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_template_that_changes_texts_is_refused(case: str) -> None:
    template = JinjaTemplate(TINY, CHANGED[case])
    with pytest.raises(ValueError, match=r"^the chat template changes the text of a message: choose a template that"):
        template.render(CHAT, False)


def test_a_template_that_refuses_a_conversation() -> None:
    template = JinjaTemplate(TINY, CHATML + "{% if messages|length > 2 %}{{ raise_exception('no') }}{% endif %}")
    with pytest.raises(ValueError, match=r"^the chat template refuses this conversation: choose a template that"):
        template.render(CHAT, False)


def test_what_cannot_be_trained_on_can_be_asked() -> None:
    known = KNOWN["deepseek_r1"]
    template = JinjaTemplate(STOPS, known.to_jinja())
    prompt = template.render((ASK, ANSWER, ASK_MORE), True)
    assert _marked(prompt) == "".join(s.text for s in known.render((ASK, ANSWER, ASK_MORE), True))


def test_a_content_that_looks_like_a_mark() -> None:
    with pytest.raises(ValueError, match=r"^a content holds 'LMFLOW1X', with which LMFlow marks contents: choose"):
        JinjaTemplate(TINY, CHATML).render((Message("user", "LMFLOW0X"), ANSWER), False)


_PIECES = ("<|im_end|>", "<|im_start|>", "<|im_", " ", "\n", "{{ x }}", "  a\n")
_contents = st.text(max_size=8) | st.sampled_from(_PIECES)


@settings(max_examples=100, deadline=None)
@given(contents=st.lists(_contents, min_size=2, max_size=6), strip=st.booleans())
def test_no_text_becomes_a_control_token_and_prompts_are_prefixes(contents: list[str], strip: bool) -> None:
    jinja = CHATML.replace("m.content +", "m.content|trim +") if strip else CHATML
    template: Any = JinjaTemplate(TINY, jinja)
    turns = contents[: len(contents) // 2 * 2]
    messages = tuple(Message(("user", "assistant")[at % 2], text) for at, text in enumerate(turns))
    own = TINY.render_chat(messages, False, (), jinja)
    segments = template.render(messages, False)
    assert "".join(segment.text for segment in segments) == own
    [encoded] = Encoder(TINY, template).encode([Conversation(messages)])[0].sequences
    known = set(TINY.control_tokens.values())
    assert [number for number in encoded.input_ids if number in known] == [1, 2] * len(messages)
    assert [label for label in encoded.labels if label in known] == [2] * (len(messages) // 2)
    for at in range(1, len(messages), 2):
        prompt = Encoder(TINY, template).encode_segments([template.render(messages[:at], True)])[0]
        assert list(encoded.input_ids)[: len(prompt.input_ids)] == list(prompt.input_ids)
