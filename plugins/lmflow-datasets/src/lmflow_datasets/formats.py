"""One class per form of rows: what it recognises, and the example it makes of a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import ROLES, Conversation, Message, Prompted, Text
from lmflow_datasets.fields import items, messages, optional_text, text

_OWN_ROLES = {role: role for role in ROLES}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}


class TextOnly:
    """``{"text": …}``: plain text."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row holds text and nothing another form would read."""
        return "text" in row and not {"input", "output", "messages", "conversations", "images"} & row.keys()

    def read(self, row: Mapping[str, Any]) -> Text:
        """Return the text."""
        return Text(text(row, "text"))


class Text2Text:
    """``{"input": …, "output": …}``: used as they are; the output is trained on."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has both fields and no instruction."""
        return {"input", "output"} <= row.keys() and "instruction" not in row

    def read(self, row: Mapping[str, Any]) -> Prompted:
        """Return the prompt and its completion."""
        return Prompted(text(row, "input"), text(row, "output"))


class LmflowConversation:
    """``{"system": …, "messages": [{"role", "content"}, …]}``: the system prompt stands beside the messages."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has messages and one of LMFlow's own fields beside them."""
        return "messages" in row and bool({"system", "conversation_id", "tools"} & row.keys())

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation, its system prompt first."""
        turns = messages(row, "messages", role="role", content="content", roles=_OWN_ROLES)
        return Conversation((*_system(optional_text(row, "system")), *turns))


class Alpaca:
    """``{"instruction": …, "input": …, "output": …}``, with ``system`` and ``history`` as LLaMA-Factory has them."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has an instruction and an output."""
        return {"instruction", "output"} <= row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return a conversation whose last user turn is the instruction, its input below it."""
        turns = [*_system(optional_text(row, "system"))]
        for pair in items(row, "history") if row.get("history") else []:
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise ValueError("the field 'history' must hold pairs of texts: [[user, assistant], …]")
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        parts = [text(row, "instruction"), optional_text(row, "input")]
        turns.append(Message("user", "\n\n".join(part for part in parts if part)))
        return Conversation((*turns, Message("assistant", text(row, "output"))))


class ShareGpt:
    """``{"conversations": [{"from": "human", "value": …}, …]}``, with an optional ``system``."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has conversations."""
        return "conversations" in row

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation."""
        turns = messages(row, "conversations", role="from", content="value", roles=_SHAREGPT_ROLES)
        return Conversation((*_system(optional_text(row, "system")), *turns))


class Messages:
    """``{"messages": [{"role", "content"}, …]}``, as in OpenAI's fine-tuning files."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has messages and none of LMFlow's own fields beside them."""
        return "messages" in row and not {"system", "conversation_id", "tools"} & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation."""
        return Conversation(tuple(messages(row, "messages", role="role", content="content", roles=_OWN_ROLES)))


def _system(prompt: str) -> tuple[Message, ...]:
    return (Message("system", prompt),) if prompt else ()
