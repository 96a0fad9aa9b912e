"""Declares the forms of data rows; each is read by a class of :mod:`lmflow_datasets.formats`."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import DatasetSpec, hookimpl


@hookimpl
def lmflow_register_datasets() -> Iterable[DatasetSpec]:
    """Offer the forms."""
    return [
        _spec("text_only", "TextOnly", "Plain text, all of it trained on.", "text"),
        _spec("text2text", "Text2Text", "A prompt and its completion, without a template.", "input, output"),
        _spec(
            "conversation",
            "LmflowConversation",
            "LMFlow's conversations.",
            "messages [role, content], system?",
        ),
        _spec("alpaca", "Alpaca", "An instruction with optional input.", "instruction, input?, output, history?"),
        _spec("sharegpt", "ShareGpt", "Turns from human and gpt.", "conversations [from, value]"),
        _spec("messages", "Messages", "OpenAI messages.", "messages [role, content]"),
    ]


def _spec(name: str, attribute: str, summary: str, fields: str) -> DatasetSpec:
    return DatasetSpec(name=name, target=f"lmflow_datasets.formats:{attribute}", summary=summary, fields=fields)
