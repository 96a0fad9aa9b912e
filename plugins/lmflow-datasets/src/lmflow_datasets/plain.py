"""Forms without a conversation: text, prompts and completions, candidates, numbers, images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import Candidates, Conversation, ImageText, Prompted, Text, Value
from lmflow_datasets.fields import items, mapping, number, text, texts
from lmflow_datasets.images import has_images, images, with_images
from lmflow_datasets.turns import openai_messages, tools

# A tree of messages in rows, as OpenAssistant has it: a row alone is no text to learn.
_TREE = {"parent_id", "message_tree_id"}
_OTHERS = {"input", "output", "messages", "conversations", "images", "image", "instruction", "prompt"}


class TextOnly:
    """``{"text": …}``: plain text."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row holds text and nothing another form would read."""
        return "text" in row and not (_OTHERS | _TREE) & row.keys()

    def read(self, row: Mapping[str, Any]) -> Text:
        """Return the text."""
        return Text(text(row, "text"))


class Text2Text:
    """``{"input": …, "output": …}``: used as they are; the output is trained on."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has both fields, no instruction, and one output."""
        return _has_input(row) and not isinstance(row["output"], list)

    def read(self, row: Mapping[str, Any]) -> Prompted:
        """Return the prompt and its completion."""
        return Prompted(text(row, "input"), text(row, "output"))


class PromptCompletion:
    """``{"prompt": …, "completion": …}``: texts used as they are, or lists of messages."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has both fields and no verdict."""
        return {"prompt", "completion"} <= row.keys() and "label" not in row

    def read(self, row: Mapping[str, Any]) -> Prompted | Conversation:
        """Return the prompt and its completion."""
        return prompt_and_answer(row, "completion")


def prompt_and_answer(row: Mapping[str, Any], answer: str) -> Prompted | Conversation:
    """Return a prompt and an answer to it: both texts, or both lists of messages.

    Raises:
        ValueError: a field is neither.
    """
    if isinstance(row.get("prompt"), list):
        prompt = with_images(openai_messages(row, "prompt"), row)
        return Conversation((*prompt, *with_images(openai_messages(row, answer), {})), tools(row))
    return Prompted(text(row, "prompt"), text(row, answer))


class TextToTextList:
    """``{"input": …, "output": [text, …]}``: several answers."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the output is a list of anything but scored texts."""
        return _has_input(row) and isinstance(row["output"], list) and not _scored(row)

    def read(self, row: Mapping[str, Any]) -> Candidates:
        """Return the answers."""
        return Candidates(text(row, "input"), texts(row, "output"))


class TextToScoredTextList:
    """``{"input": …, "output": [{"score", "text"}, …]}``: several answers, each with a score."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the output is a list of objects."""
        return _has_input(row) and isinstance(row["output"], list) and _scored(row)

    def read(self, row: Mapping[str, Any]) -> Candidates:
        """Return the answers and their scores."""
        outputs = [mapping(item, "an item of 'output'") for item in items(row, "output")]
        if not outputs:
            raise ValueError("the field 'output' is empty")
        answers = tuple(text(item, "text") for item in outputs)
        return Candidates(text(row, "input"), answers, tuple(number(item, "score") for item in outputs))


class FloatOnly:
    """``{"value": …}``: a number."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row holds a value and nothing another form would read."""
        return "value" in row and not ({"text"} | _OTHERS) & row.keys()

    def read(self, row: Mapping[str, Any]) -> Value:
        """Return the number."""
        return Value(number(row, "value"))


class ImageTextRow:
    """``{"images": …, "text": …}``: one image or several, and a text; the field may be called ``image``, too."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has both fields, and none that another form would read."""
        return "text" in row and has_images(row) and not _OTHERS & row.keys() - {"images", "image"}

    def read(self, row: Mapping[str, Any]) -> ImageText:
        """Return images and text."""
        shown = images(row)
        if not shown:
            raise ValueError("the row has no images: give their paths or addresses in 'images'")
        return ImageText(shown, text(row, "text"))


def _has_input(row: Mapping[str, Any]) -> bool:
    return {"input", "output"} <= row.keys() and "instruction" not in row


def _scored(row: Mapping[str, Any]) -> bool:
    return any(isinstance(item, Mapping) for item in row["output"])
