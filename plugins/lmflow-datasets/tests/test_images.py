"""Images beside messages: in the forms of LLaVA, LLaMA-Factory and TRL, each in its place, or the row is refused."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from lmflow_core.api import (
    Conversation,
    DatasetFormat,
    DatasetSpec,
    ImagePart,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompt,
)
from lmflow_datasets import plugin

_SPECS: dict[str, DatasetSpec] = {spec.name: spec for spec in plugin.lmflow_register_datasets()}
A, B, C = (ImagePart(f"{name}.png") for name in "abc")
SEEN = Message("user", (A, "\nWhat is it?"))
CAT, DOG = Message("assistant", "A cat."), Message("assistant", "A dog.")
ASKED = {"role": "user", "content": "<image>\nWhat is it?"}
SAID = {"role": "assistant", "content": "A cat."}
HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A cat."}
LIST = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat is it?"}]}


def _reader(form: str) -> DatasetFormat:
    module, _, name = _SPECS[form].target.partition(":")
    reader: DatasetFormat = getattr(importlib.import_module(module), name)()
    return reader


GOOD: dict[str, tuple[str, dict[str, Any], Any]] = {
    "LLaVA": ("sharegpt", {"id": "1", "image": "a.png", "conversations": [HUMAN, GPT]}, Conversation((SEEN, CAT))),
    "LLaVA, a row of text": (
        "sharegpt",
        {"id": "2", "conversations": [HUMAN, GPT]},
        Conversation((Message("user", "<image>\nWhat is it?"), CAT)),
    ),
    "LLaVA, a row of text with null": (
        "sharegpt",
        {"image": None, "conversations": [{"from": "human", "value": "Hi"}, GPT]},
        Conversation((Message("user", "Hi"), CAT)),
    ),
    "LLaMA-Factory": (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Is <image> like <image>?"}, GPT,
                {"from": "human", "value": "And<image>"}, GPT,
            ],
            "images": ["a.png", "b.png", "c.png"],
        },
        Conversation((Message("user", ("Is ", A, " like ", B, "?")), CAT, Message("user", ("And", C)), CAT)),
    ),
    "LLaMA-Factory, messages": (
        "messages", {"messages": [ASKED, SAID], "images": ["a.png"]}, Conversation((SEEN, CAT))
    ),
    "LLaMA-Factory, no image": (
        "messages",
        {"messages": [{"role": "user", "content": "Hi"}, SAID], "images": []},
        Conversation((Message("user", "Hi"), CAT)),
    ),
    "LLaMA-Factory, alpaca": (
        "alpaca",
        {"instruction": "<image>", "input": "What is it?", "output": "A cat.", "images": ["a.png"]},
        Conversation((Message("user", (A, "\n\nWhat is it?")), CAT)),
    ),
    "TRL": ("messages", {"messages": [LIST, SAID], "images": ["a.png"]}, Conversation((SEEN, CAT))),
    "TRL, as datasets stores images": (
        "messages", {"messages": [LIST, SAID], "images": [{"bytes": None, "path": "a.png"}]}, Conversation((SEEN, CAT))
    ),
    "images with and without a source": (
        "messages",
        {"messages": [{"role": "user", "content": [
            {"type": "image", "image": "a.png"}, {"type": "image"}, {"type": "text", "text": "?"}]}, SAID],
         "images": "b.png"},
        Conversation((Message("user", (A, B, "?")), CAT)),
    ),
    "with a system prompt beside them": (
        "conversation",
        {"system": "Be brief.", "messages": [LIST, SAID], "image": "a.png"},
        Conversation((Message("system", "Be brief."), SEEN, CAT)),
    ),
    "a prompt": ("prompt", {"prompt": "<image>\nWhat is it?", "images": ["a.png"]}, Prompt((SEEN,))),
    "a prompt and its completion": (
        "prompt_completion", {"prompt": [LIST], "completion": [SAID], "images": ["a.png"]}, Conversation((SEEN, CAT))
    ),
    "a question": (
        "question_answer",
        {"image": "a.png", "question": "What is it?", "answer": "A cat."},
        Conversation((Message("user", (A, "What is it?")), CAT)),
    ),
    "a question with a place": (
        "question_answer",
        {"images": ["a.png", "b.png"], "question": "Is <image> like <image>", "answer": "A cat.", "system": "s"},
        Conversation((Message("system", "s"), Message("user", ("Is ", A, " like ", B)), CAT)),
    ),
    "a preference, LLaMA-Factory": (
        "preference",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "A dog."}, "images": ["a.png"]},
        Preference(Conversation((SEEN, CAT)), Conversation((SEEN, DOG))),
    ),
    "a preference, TRL": (
        "preference",
        {"prompt": [LIST], "chosen": [SAID], "rejected": [{**SAID, "content": "A dog."}], "images": ["a.png"]},
        Preference(Conversation((SEEN, CAT)), Conversation((SEEN, DOG))),
    ),
    "a preference of whole conversations": (
        "preference",
        {"chosen": [LIST, SAID], "rejected": [LIST, {**SAID, "content": "A dog."}], "images": ["a.png"]},
        Preference(Conversation((SEEN, CAT)), Conversation((SEEN, DOG))),
    ),
    "a verdict": (
        "kto", {"messages": [LIST, SAID], "label": True, "images": ["a.png"]}, Judged(Conversation((SEEN, CAT)), True)
    ),
    "a caption": ("image_text", {"image": "a.png", "text": "A cat."}, ImageText(("a.png",), "A cat.")),
    "captions": ("image_text", {"images": ["a.png", "b.png"], "text": "x"}, ImageText(("a.png", "b.png"), "x")),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_each_image_has_its_place(name: str) -> None:
    form, row, expected = GOOD[name]
    assert _reader(form).read(row) == expected
    assert [other for other in _SPECS if _reader(other).recognises(row)] == [form]


_PLACES = "(<image> in a text, or an image part with no source)"
BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "fewer places": (
        "sharegpt",
        {"conversations": [HUMAN, GPT], "images": ["a.png", "b.png"]},
        f"the messages have 1 place for images {_PLACES}, and the field 'images' has 2: there must be as many",
    ),
    "more places": (
        "messages",
        {"messages": [{"role": "user", "content": "<image><image>"}, SAID], "image": "a.png"},
        f"the messages have 2 places for images {_PLACES}, and the field 'image' has 1: there must be as many",
    ),
    "no place": (
        "messages",
        {"messages": [{"role": "user", "content": "Hi"}, SAID], "images": ["a.png"]},
        f"the messages have 0 places for images {_PLACES}, and the field 'images' has 1: there must be as many",
    ),
    "a place and an empty list": (
        "messages",
        {"messages": [ASKED, SAID], "images": []},
        f"the messages have 1 place for images {_PLACES}, and the field 'images' has 0: there must be as many",
    ),
    "a question with too few places": (
        "question_answer",
        {"question": "Is <image> it?", "answer": "x", "images": ["a.png", "b.png"]},
        f"the messages have 1 place for images {_PLACES}, and the field 'images' has 2: there must be as many",
    ),
    "a part without a source, and no images": (
        "messages",
        {"messages": [LIST, SAID]},
        "an image in 'content' has no path and no address: give one as 'image', 'path' or 'url', or in 'images'",
    ),
    "an image within an answer that is compared": (
        "preference",
        {"prompt": [LIST], "chosen": [LIST], "rejected": [SAID], "images": ["a.png"]},
        "an image in 'content' has no path and no address: give one as 'image', 'path' or 'url', or in 'images'",
    ),
    "both fields": (
        "messages",
        {"messages": [LIST, SAID], "images": ["a.png"], "image": "a.png"},
        "the row has both 'image' and 'images': leave one out",
    ),
    "bytes": (
        "messages",
        {"messages": [LIST, SAID], "images": [{"bytes": "iVBORw0K", "path": "a.png"}]},
        "the field 'images' must hold paths or addresses of images, not bytes within the row",
    ),
    "a number": (
        "sharegpt",
        {"conversations": [HUMAN, GPT], "image": 3},
        "the field 'image' must hold paths or addresses of images, not a number",
    ),
    "an empty path": (
        "image_text",
        {"image": "", "text": "x"},
        "the field 'image' must hold paths or addresses of images, not an empty text",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_whose_images_do_not_fit_is_refused(name: str) -> None:
    form, row, problem = BAD[name]
    with pytest.raises(ValueError, match=r"^") as caught:
        _reader(form).read(row)
    assert str(caught.value) == problem
