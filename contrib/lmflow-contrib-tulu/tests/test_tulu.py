"""The template against the models' own Jinja, which loops over messages where ours is texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_contrib_tulu.template import TULU3
from lmflow_core.api import Message

jinja2 = pytest.importorskip("jinja2", reason="the models' own templates are written in it")

# What Tulu 3 and OLMo 2 render, in as many words: an end token behind every answer, a line break unless it is the last.
OWN = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|assistant|>\n' + m.content + eos_token }}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
SYSTEM, ASK, MORE = Message("system", "Be brief."), Message("user", " 2 + 3?\n"), Message("user", "And {content}?")
ANSWER, ANSWER_MORE = Message("assistant", "5 "), Message("assistant", "<|user|>\n6")
CHATS: dict[str, tuple[Message, ...]] = {
    "question": (ASK,),
    "answer": (ASK, ANSWER),
    "second question": (ASK, ANSWER, MORE),
    "second answer": (ASK, ANSWER, MORE, ANSWER_MORE),
}


def _rendered(template: str, messages: tuple[Message, ...], prompt: bool, bos: str) -> str:
    values: dict[str, Any] = {"messages": [{"role": m.role, "content": m.content} for m in messages]}
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text: str = environment.from_string(template).render(
        **values, add_generation_prompt=prompt, bos_token=bos, eos_token="<|endoftext|>"
    )
    return text


@pytest.mark.parametrize("bos", ["", "<|endoftext|>", "<|begin_of_text|>"])
@pytest.mark.parametrize("system", [(), (SYSTEM,)], ids=["alone", "system"])
@pytest.mark.parametrize("name", CHATS)
def test_texts_are_those_of_the_models_own(name: str, system: tuple[Message, ...], bos: str) -> None:
    template = TULU3.bind(bos or None, "<|endoftext|>")
    messages = (*system, *CHATS[name])
    asks = messages[-1].role == "user"
    segments = template.render(messages, asks)
    own = _rendered(OWN, messages, asks, bos)
    assert "".join(segment.text for segment in segments) == own + ("" if asks else "\n")
    assert _rendered(template.to_jinja(), messages, asks, bos) == own + ("" if asks else "\n")
    answers = "".join(f"{message.content}<|endoftext|>" for message in messages if message.role == "assistant")
    assert "".join(segment.text for segment in segments if segment.trainable) == answers


def test_a_model_that_was_made_with_it_finds_it(
    lmflow_cli: Callable[..., Any], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("transformers", reason="opens a model")
    pytest.importorskip("lmflow_transformers", reason="opens a model")
    pytest.importorskip("lmflow_datasets", reason="reads the rows")
    from lmflow_core.testing.tiny import make_tiny_model

    folder = make_tiny_model(tmp_path / "olmo")
    (folder / "chat_template.jinja").write_text(OWN, encoding="utf-8")
    rows = write_rows([{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]}])
    found, named, own = (
        lmflow_cli("data", "preview", rows, "--model", folder, *asked, "--json")
        for asked in ((), ("--template", "olmo2"), ("--template", "tokenizer"))
    )
    assert found.status == 0, found.stderr
    # The line break behind the last answer tells the template from the Jinja itself.
    assert found.json() == named.json() != own.json()
