"""Models' own chat templates with images: the ids are those that transformers' own processors make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lmflow_core.api import IGNORE, Conversation, ImagePart, Message, ModelSettings, Prompt
from lmflow_core.data.encoding import Encoder
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.choosing import choose_template
from lmflow_multimodal.models import ImageTextModel

_END = "<|im_end|>"
# Contents as texts or as lists, in a frame that each of these has of its own.
_EITHER = (
    "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if m.content is string %}}{{{{ m.content }}}}"
    "{{% else %}}{{% for part in m.content %}}{{% if part.type == 'image' %}}{image}"
    "{{% elif 'text' in part %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}{{% endif %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
# Lists only; the space behind the role is there where a text comes first.
_LISTS = (
    "<|im_start|>{% for m in messages %}{{ m.role|capitalize }}{{ ':' if m.content[0].type == 'image' else ': ' }}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}<image>"
    "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# Lists only; all images of a turn go before its texts.
_IMAGES_FIRST = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for part in m.content|selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in m.content|selectattr('type', 'equalto', 'text') %}{{ part.text }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TRIMMED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content|trim }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'image' %}<start_of_image>"
    "{% else %}{{ part.text|trim }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN = _EITHER.format(image="<|vision_start|><|image_pad|><|vision_end|>")
TEMPLATES = {
    "llava": _IMAGES_FIRST,
    "llava_next": _IMAGES_FIRST,
    "idefics3": _LISTS,
    "smolvlm": _LISTS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "gemma3": _TRIMMED,
    "internvl": _EITHER.format(image="<IMG_CONTEXT>\n"),
}


def _conversations(photos: Sequence[str]) -> dict[str, tuple[Message, ...]]:
    one, two, three = map(ImagePart, photos[:3])
    answer, more = Message("assistant", "The dog"), Message("user", "Hello world?")
    return {
        "one image": (Message("user", (one, "What jumps?")), answer),
        "no image": (Message("system", "You are brown."), more, answer),
        "an image behind a text": (Message("system", "Hi."), Message("user", ("What jumps?", two)), answer),
        "several, in several turns": (
            Message("user", (one, two, "Is the first brown?")), answer, Message("user", ("And", three)), answer
        ),
        "images, and later none": (Message("user", (three,)), answer, more, answer),
    }  # fmt: skip


def _theirs(processor: Any, messages: Sequence[Message], prompt: bool) -> list[int]:
    """Return the ids that the processor itself makes of a conversation."""
    turns = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": _opened(part)}
                for part in message.parts
            ],
        }
        for message in messages
    ]
    # Templates begin with what opens a text, or the model wants nothing there.
    ids = processor.apply_chat_template(
        turns, add_generation_prompt=prompt, tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"add_special_tokens": False},
    )["input_ids"]  # fmt: skip
    return [int(number) for number in ids[0]]


def _opened(image: ImagePart) -> Image.Image:
    with Image.open(image.source) as file:
        return file.convert("RGB")


@pytest.mark.parametrize("family", TEMPLATES)
def test_ids_are_the_processors(family: str, seeing_model: Callable[[str], Path], photos: list[str]) -> None:
    folder, catalogue = str(seeing_model(family)), Catalogue.discover()
    opened = open_model(ModelSettings(model=folder, device="cpu"), catalogue)
    model = opened.model
    assert isinstance(model, ImageTextModel)
    model.tokenizer.inner.chat_template = model.processor.chat_template = TEMPLATES[family]
    _, template = choose_template("tokenizer", opened, catalogue)
    encoder = Encoder(model.tokenizer, template, media=model.media)
    end = model.tokenizer.control_tokens["<end_of_utterance>" if TEMPLATES[family] is _LISTS else _END]
    for name, messages in _conversations(photos).items():
        [example] = encoder.encode([Conversation(messages)])[0].sequences
        assert list(example.input_ids) == _theirs(model.processor, messages, False), name
        assert [m.source for m in example.media] == [
            part.source for message in messages for part in message.parts if isinstance(part, ImagePart)
        ]
        trained = [label for label in example.labels if label != IGNORE]
        answers = sum(message.role == "assistant" for message in messages)
        assert model.tokenizer.decode(trained).split(model.tokenizer.decode([end])) == [
            *[model.tokenizer.decode(trained[: trained.index(end)])] * answers, ""
        ]  # fmt: skip
        assert "The dog" in model.tokenizer.decode(trained)
        [asked] = encoder.encode([Prompt(messages[:-1])])[0].sequences
        assert list(asked.input_ids) == _theirs(model.processor, messages[:-1], True), name
        assert list(example.input_ids)[: len(asked.input_ids)] == list(asked.input_ids)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.usefixtures("other_plugins")
def test_which_template_is_the_models_shows_with_an_image(
    family: str, seeing_model: Callable[[str], Path], photos: list[str]
) -> None:
    catalogue = Catalogue.discover()
    folder = str(seeing_model(family))
    opened = open_model(ModelSettings(model=folder, device="cpu"), catalogue)
    placeholder = opened.model.media.placeholder if opened.model.media else ""
    inner: Any = opened.model.tokenizer
    inner.inner.chat_template = _EITHER.format(image=placeholder)
    name, template = choose_template(None, opened, catalogue)
    assert name == "chatml"
    assert template is not None
    # Saved with the model, the template has the place again.
    inner.inner.chat_template = template.to_jinja(placeholder)
    messages = _conversations(photos)["several, in several turns"]
    _, own = choose_template("tokenizer", opened, catalogue)
    encoded = [
        Encoder(inner, each, media=opened.model.media).encode([Conversation(messages)]) for each in (template, own)
    ]
    assert encoded[0] == encoded[1]
    inner.inner.chat_template = _EITHER.format(image=f"{placeholder}\n")
    assert choose_template(None, opened, catalogue)[0] == "tokenizer"
