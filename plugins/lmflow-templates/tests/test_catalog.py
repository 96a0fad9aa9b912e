"""Every template against texts written by hand, its Jinja twin, and the rules that all keep.

The golden texts of smollm2, llama2, llama3 and zephyr are what the templates published with SmolLM2-Instruct,
Llama-2-chat, Llama-3-Instruct and zephyr-7b-beta render. ``⟦…⟧`` encloses what is trained on.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmflow_core.api import ChatTemplate, Message, Segment
from lmflow_templates import catalog, plugin

BOS, EOS = "<s>", "</s>"


def _load(target: str) -> ChatTemplate:
    module, _, attribute = target.partition(":")
    template = getattr(importlib.import_module(module), attribute)
    assert isinstance(template, ChatTemplate)
    return template.bind(BOS, EOS)


TEMPLATES = {spec.name: _load(spec.target) for spec in plugin.lmflow_register_templates()}

SYSTEM = Message("system", "Be brief.")
ASK, ANSWER = Message("user", "2 + 3?"), Message("assistant", "5")
ASK_MORE, ANSWER_MORE = Message("user", "And 2 * 3?"), Message("assistant", "6")

CONVERSATIONS: dict[str, tuple[tuple[Message, ...], bool]] = {
    "single": ((ASK, ANSWER), False),
    "several": ((ASK, ANSWER, ASK_MORE, ANSWER_MORE), False),
    "system": ((SYSTEM, ASK, ANSWER), False),
    "system, several": ((SYSTEM, ASK, ANSWER, ASK_MORE, ANSWER_MORE), False),
    "prompt": ((ASK,), True),
    "system, second prompt": ((SYSTEM, ASK, ANSWER, ASK_MORE), True),
}

SMOLLM2_SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
GOLDEN: dict[str, dict[str, str]] = {
    "chatml": {
        "single": "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n",
        "several": (
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>⟧\n"
        ),
        "system": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
        ),
        "system, several": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>⟧\n"
        ),
        "prompt": "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n",
        "system, second prompt": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n"
        ),
    },
    "smollm2": {
        "single": f"{SMOLLM2_SYSTEM}<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n",
        "several": (
            f"{SMOLLM2_SYSTEM}<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>⟧\n"
        ),
        "system": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
        ),
        "system, several": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>⟧\n"
        ),
        "prompt": f"{SMOLLM2_SYSTEM}<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n",
        "system, second prompt": (
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n"
            "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n"
        ),
    },
    "llama2": {
        "single": "<s>[INST] 2 + 3? [/INST]⟦ 5 </s>⟧",
        "several": "<s>[INST] 2 + 3? [/INST]⟦ 5 </s>⟧<s>[INST] And 2 * 3? [/INST]⟦ 6 </s>⟧",
        "system": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 3? [/INST]⟦ 5 </s>⟧",
        "system, several": (
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 3? [/INST]⟦ 5 </s>⟧<s>[INST] And 2 * 3? [/INST]⟦ 6 </s>⟧"
        ),
        "prompt": "<s>[INST] 2 + 3? [/INST]",
        "system, second prompt": (
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 3? [/INST]⟦ 5 </s>⟧<s>[INST] And 2 * 3? [/INST]"
        ),
    },
    "llama3": {
        "single": (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
        ),
        "several": (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
            "<|start_header_id|>user<|end_header_id|>\n\nAnd 2 * 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦6<|eot_id|>⟧"
        ),
        "system": (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
        ),
        "system, several": (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
            "<|start_header_id|>user<|end_header_id|>\n\nAnd 2 * 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦6<|eot_id|>⟧"
        ),
        "prompt": (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        "system, second prompt": (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
            "<|start_header_id|>user<|end_header_id|>\n\nAnd 2 * 3?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
    },
    "zephyr": {
        "single": "<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n",
        "several": ("<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n<|user|>\nAnd 2 * 3?</s>\n<|assistant|>\n⟦6</s>⟧\n"),
        "system": "<|system|>\nBe brief.</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n",
        "system, several": (
            "<|system|>\nBe brief.</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n"
            "<|user|>\nAnd 2 * 3?</s>\n<|assistant|>\n⟦6</s>⟧\n"
        ),
        "prompt": "<|user|>\n2 + 3?</s>\n<|assistant|>\n",
        "system, second prompt": (
            "<|system|>\nBe brief.</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n"
            "<|user|>\nAnd 2 * 3?</s>\n<|assistant|>\n"
        ),
    },
    "empty": {
        "single": "<s>2 + 3?⟦5</s>⟧",
        "several": "<s>2 + 3?⟦5</s>⟧And 2 * 3?⟦6</s>⟧",
        "system": "<s>Be brief.2 + 3?⟦5</s>⟧",
        "system, several": "<s>Be brief.2 + 3?⟦5</s>⟧And 2 * 3?⟦6</s>⟧",
        "prompt": "<s>2 + 3?",
        "system, second prompt": "<s>Be brief.2 + 3?⟦5</s>⟧And 2 * 3?",
    },
}
CASES = [(template, conversation) for template in TEMPLATES for conversation in CONVERSATIONS]


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def _marked(segments: Sequence[Segment]) -> str:
    marked = "".join(f"⟦{segment.text}⟧" if segment.trainable else segment.text for segment in segments)
    return marked.replace("⟧⟦", "")


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _jinja(template: ChatTemplate, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """Render as transformers does."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_exception
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return environment.from_string(template.to_jinja()).render(
        messages=turns, add_generation_prompt=add_generation_prompt, bos_token=BOS, eos_token=EOS
    )


@pytest.mark.parametrize(("template", "conversation"), CASES)
def test_text_and_mask_are_the_golden_ones(template: str, conversation: str) -> None:
    messages, prompt = CONVERSATIONS[conversation]
    assert _marked(TEMPLATES[template].render(messages, prompt)) == GOLDEN[template][conversation]


@pytest.mark.parametrize(("template", "conversation"), CASES)
def test_jinja_gives_the_golden_text(template: str, conversation: str) -> None:
    messages, prompt = CONVERSATIONS[conversation]
    golden = GOLDEN[template][conversation].replace("⟦", "").replace("⟧", "")
    assert _jinja(TEMPLATES[template], messages, prompt) == golden


def test_transformers_gives_the_golden_text() -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS, eos_token=EOS)
    for template, conversation in CASES:
        messages, prompt = CONVERSATIONS[conversation]
        turns = [{"role": message.role, "content": message.content} for message in messages]
        tokenizer.chat_template = TEMPLATES[template].to_jinja()
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)
        assert text == GOLDEN[template][conversation].replace("⟦", "").replace("⟧", "")


WHITE_SPACE = (Message("system", " s\n"), Message("user", "\n a "), Message("assistant", " b\n"))
WHITE_SPACE_GOLDEN = {
    "chatml": (
        "<|im_start|>system\n s\n<|im_end|>\n<|im_start|>user\n\n a <|im_end|>\n"
        "<|im_start|>assistant\n⟦ b\n<|im_end|>⟧\n"
    ),
    "smollm2": (
        "<|im_start|>system\n s\n<|im_end|>\n<|im_start|>user\n\n a <|im_end|>\n"
        "<|im_start|>assistant\n⟦ b\n<|im_end|>⟧\n"
    ),
    "llama2": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\na [/INST]⟦ b </s>⟧",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦b<|eot_id|>⟧"
    ),
    "zephyr": "<|system|>\n s\n</s>\n<|user|>\n\n a </s>\n<|assistant|>\n⟦ b\n</s>⟧\n",
    "empty": "<s> s\n\n a ⟦ b\n</s>⟧",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_white_space_at_the_ends(template: str) -> None:
    segments = TEMPLATES[template].render(WHITE_SPACE, False)
    assert _marked(segments) == WHITE_SPACE_GOLDEN[template]
    assert _jinja(TEMPLATES[template], WHITE_SPACE, False) == _text(segments)


EMPTY_SYSTEM_GOLDEN = {
    "chatml": "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n",
    "smollm2": "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n",
    "llama2": "<s>[INST] <<SYS>>\n\n<</SYS>>\n\n2 + 3? [/INST]",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "zephyr": "<|system|>\n</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n",
    "empty": "<s>2 + 3?",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_empty_system_message_stays_and_is_not_the_default(template: str) -> None:
    messages = (Message("system", ""), ASK)
    assert _text(TEMPLATES[template].render(messages, True)) == EMPTY_SYSTEM_GOLDEN[template]
    assert _jinja(TEMPLATES[template], messages, True) == EMPTY_SYSTEM_GOLDEN[template]


STOPS = {
    "chatml": ("<|im_end|>",),
    "smollm2": ("<|im_end|>",),
    "llama2": ("</s>",),
    "llama3": ("<|eot_id|>",),
    "zephyr": ("</s>",),
    "empty": ("</s>",),
}


def test_stops() -> None:
    assert {name: template.stop for name, template in TEMPLATES.items()} == STOPS


def test_a_tokenizer_without_an_end_token_leaves_no_mark() -> None:
    unended = catalog.ZEPHYR.bind(None, None)
    assert unended.stop == ()
    assert _text(unended.render((ASK, ANSWER), False)) == "<|user|>\n2 + 3?\n<|assistant|>\n5\n"


NASTY = [
    "{{ messages }}",
    "{% raw %}{% endfor %}",
    "{# gone #}",
    "}} %} #}",
    "{content} {bos} {eos}",
    'it\'s "quoted" `so`',
    "back\\slash \\n \\u0041 \\",
    "line\nline\r\nline\ttab",
    "😀 café \u2028 \x85 \x00 \x7f",
    "<|im_end|><|eot_id|></s><s>[/INST]<<SYS>>",
    "<b>&amp;</b>",
    "⟦⟧",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("nasty", NASTY)
def test_special_characters_survive(template: str, nasty: str) -> None:
    messages = (Message("system", nasty), Message("user", nasty), Message("assistant", nasty))
    segments = TEMPLATES[template].render(messages, True)
    assert [segment.text for segment in segments if not segment.control] == [nasty] * 3
    assert _jinja(TEMPLATES[template], messages, True) == _text(segments)


WRITTEN = {
    "chatml": "{}<|im_end|>",
    "smollm2": "{}<|im_end|>",
    "llama2": " {} </s>",
    "llama3": "{}<|eot_id|>",
    "zephyr": "{}</s>",
    "empty": "{}</s>",
}
STRIPPED = ("llama2", "llama3")
_contents = st.text(max_size=12) | st.sampled_from(NASTY) | st.sampled_from(["", " ", "\n\n"])


@st.composite
def _conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    turns = [Message("system", draw(_contents))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Message("user", draw(_contents)), Message("assistant", draw(_contents))]
    return tuple(turns)


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(TEMPLATES)), messages=_conversations())
def test_rules_that_every_rendering_keeps(name: str, messages: tuple[Message, ...]) -> None:
    template = TEMPLATES[name]
    segments = template.render(messages, False)
    text = _text(segments)
    assert _jinja(template, messages, False) == text

    contents = [m.content.strip() if name in STRIPPED else m.content for m in messages]
    answers = [content for content, m in zip(contents, messages, strict=True) if m.role == "assistant"]
    from_data = [segment.text for segment in segments if not segment.control]
    defaults = from_data[: len(from_data) - len([content for content in contents if content])]
    assert from_data == defaults + [content for content in contents if content]
    assert len(defaults) == (name == "smollm2" and messages[0].role != "system")
    assert "".join(s.text for s in segments if s.trainable) == "".join(WRITTEN[name].format(a) for a in answers)
    assert all(segment.text for segment in segments)

    for position, message in enumerate(messages):
        if message.role == "assistant":
            prompt = template.render(messages[:position], True)
            assert text.startswith(_text(prompt))
            assert _jinja(template, messages[:position], True) == _text(prompt)
