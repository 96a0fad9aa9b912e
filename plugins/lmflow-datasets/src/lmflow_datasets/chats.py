"""Conversations: LMFlow's, alpaca, sharegpt and OpenAI's messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmflow_core.api import Conversation, Message
from lmflow_datasets.fields import items, optional_text, text
from lmflow_datasets.images import with_images
from lmflow_datasets.turns import openai_messages, sharegpt_messages, tools, with_system

_BESIDE = {"system", "conversation_id"}
_PAIR = {"chosen", "rejected"}
_JUDGED = {*_PAIR, "label"}


class LmflowConversation:
    """``{"system": …, "messages": [{"role", "content"}, …]}``: the system prompt stands beside the messages."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has messages and one of LMFlow's own fields beside them."""
        return "messages" in row and bool(_BESIDE & row.keys()) and not _JUDGED & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation, its system prompt first."""
        messages = with_system(optional_text(row, "system"), openai_messages(row))
        return Conversation(with_images(messages, row), tools(row))


class Messages:
    """``{"messages": [{"role", "content"}, …], "tools": …, "images": …}``, as in OpenAI's fine-tuning files."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has messages and none of LMFlow's own fields beside them."""
        return "messages" in row and not (_BESIDE | _JUDGED) & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation."""
        return Conversation(with_images(openai_messages(row), row), tools(row))


class Alpaca:
    """``{"instruction", "input", "output"}``, with ``system``, ``history`` and ``images`` as LLaMA-Factory has them."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has an instruction and an output."""
        return {"instruction", "output"} <= row.keys() and not _PAIR & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return a conversation whose last user turn is the instruction, its input below it."""
        return Conversation((*alpaca_prompt(row), Message("assistant", text(row, "output"))))


def alpaca_prompt(row: Mapping[str, Any], context: str = "input") -> tuple[Message, ...]:
    """Return the messages before the answer: system prompt, history, and the instruction with the field ``context``.

    Raises:
        ValueError: a field is missing or not what it must be.
    """
    turns = []
    for pair in items(row, "history") if row.get("history") else []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise ValueError("the field 'history' must hold pairs of texts: [[user, assistant], …]")
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    parts = [text(row, "instruction"), optional_text(row, context)]
    turns.append(Message("user", "\n\n".join(part for part in parts if part)))
    return with_images(with_system(optional_text(row, "system"), turns), row)


class ShareGpt:
    """``{"conversations": [{"from": "human", "value": …}, …]}``, with an optional ``system``, ``tools`` and ``images``.

    LLaVA's data is in this form, with one ``image`` for the ``<image>`` in the first question.
    """

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has conversations and no pair of answers."""
        return "conversations" in row and not _PAIR & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation."""
        messages = with_system(optional_text(row, "system"), sharegpt_messages(row))
        return Conversation(with_images(messages, row), tools(row))


class QuestionAnswer:
    """``{"question": …, "answer": …}``, both texts; images are seen before the question, or at ``<image>`` in it."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether question and answer are texts and there are no choices, of which an answer would be one."""
        return all(isinstance(row.get(name), str) for name in ("question", "answer")) and "choices" not in row

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return a conversation of two turns."""
        asked = with_system(optional_text(row, "system"), [Message("user", text(row, "question"))])
        return Conversation((*with_images(asked, row, lead=True), Message("assistant", text(row, "answer"))))


class InstructionResponse:
    """``{"instruction": …, "context": …, "response": …}``, as Dolly has them."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has an instruction and a response, and no output that alpaca would read."""
        return {"instruction", "response"} <= row.keys() and not ({"output"} | _PAIR) & row.keys()

    def read(self, row: Mapping[str, Any]) -> Conversation:
        """Return a conversation of two turns, the context below the instruction."""
        return Conversation((*alpaca_prompt(row, "context"), Message("assistant", text(row, "response"))))
