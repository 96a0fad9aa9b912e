"""Prompts whose answers the data does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import Message, Prompt
from lmflow_datasets.fields import optional_text, text
from lmflow_datasets.images import with_images
from lmflow_datasets.turns import openai_messages, tools, with_system

_ANSWERED = {"completion", "chosen", "rejected", "output", "label"}
_OTHER_PROMPTS = {"messages", "conversations", "instruction"}


class PromptRow:
    """``{"prompt": text or messages}``; asked for by name, also ``{"messages": …}`` that end with the user."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a prompt, and nothing that answers it or that another form would read."""
        return "prompt" in row and not (_ANSWERED | _OTHER_PROMPTS) & row.keys()

    def read(self, row: Mapping[str, Any]) -> Prompt:
        """Return the prompt; a text is the user's message."""
        return Prompt(with_images(with_system(optional_text(row, "system"), _asked(row)), row), tools(row))


def _asked(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if "prompt" not in row and "messages" in row:
        return openai_messages(row)
    if isinstance(row.get("prompt"), list):
        return openai_messages(row, "prompt")
    return (Message("user", text(row, "prompt")),)
