"""Names left open in the answers of example data, such as ``{{name}}``, which a model would answer with."""

from __future__ import annotations

import re

from lmflow_core.contracts.examples import Conversation

_NAMES = "name|author|model|model_name|company|developer|assistant|bot_name|team"
_OPEN = re.compile(rf"\{{\{{\s?({_NAMES})\s?\}}\}}", re.IGNORECASE)
# Where code is spoken of, braces are what is meant.
_CODE = re.compile(r"[`<>]|\{%")


def check_placeholders(conversation: Conversation) -> None:
    """Check that no answer holds a placeholder outside of code.

    Raises:
        ValueError: one does; the message names it.
    """
    for message in conversation.messages:
        if message.role != "assistant" or not isinstance(message.content, str) or "{{" not in message.content:
            continue
        found = _OPEN.search(message.content)
        if found and not _CODE.search(message.content):
            raise ValueError(
                f"an answer holds the placeholder {found[0]}: replace it in the file by what the model is to say, "
                "or write it in backquotes where the braces are meant"
            )
