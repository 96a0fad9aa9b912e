"""Pairs of answers, and answers with a verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmflow_core.api import Conversation, Judged, Message, Preference, Prompted
from lmflow_datasets.chats import LmflowConversation, alpaca_prompt
from lmflow_datasets.fields import field, mapping, number, optional_text, text, truth
from lmflow_datasets.images import with_images
from lmflow_datasets.plain import prompt_and_answer
from lmflow_datasets.turns import openai_messages, sharegpt_message, sharegpt_messages, tools, with_system

_PAIR = {"chosen", "rejected"}
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")


class PairedConversation:
    """``{"chosen": conversation, "rejected": conversation}``, each in LMFlow's form."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether both answers are conversations."""
        return all(isinstance(row.get(name), Mapping) and "messages" in row[name] for name in _PAIR)

    def read(self, row: Mapping[str, Any]) -> Preference:
        """Return the pair."""
        chosen, rejected = (_conversation(row, name) for name in ("chosen", "rejected"))
        return Preference(chosen, rejected, _margin(row))


class PairedTextToText:
    """``{"prompt": …, "chosen": …, "rejected": …, "margin": …}``: texts used as they are."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether prompt and answers are there and no answer is a list of messages."""
        return {"prompt", *_PAIR} <= row.keys() and not any(_is_chat(row[name]) for name in ("prompt", *_PAIR))

    def read(self, row: Mapping[str, Any]) -> Preference:
        """Return the pair."""
        prompt = text(row, "prompt")
        chosen, rejected = (Prompted(prompt, text(row, name)) for name in ("chosen", "rejected"))
        return Preference(chosen, rejected, _margin(row))


class ChatPreference:
    """Two answers to a conversation, in the forms of TRL (``prompt``), LLaMA-Factory (``conversations``) and alpaca.

    An answer is a text, a message, or a list of messages; without a prompt it is a whole conversation.
    """

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has two answers that the plainer forms do not read."""
        if not row.keys() >= _PAIR or PairedConversation().recognises(row) or PairedTextToText().recognises(row):
            return False
        return bool({"prompt", "conversations", "instruction"} & row.keys()) or isinstance(row["chosen"], list)

    def read(self, row: Mapping[str, Any]) -> Preference:
        """Return the pair."""
        prompt = _prompt(row)
        # Images beside two whole conversations are those of both; beside a prompt they are the prompt's.
        shown = {} if prompt else row
        chosen, rejected = (
            Conversation((*prompt, *with_images(_answer(row, name), shown)), tools(row))
            for name in ("chosen", "rejected")
        )
        return Preference(chosen, rejected, _margin(row))


class DialoguePair:
    """``{"chosen": …, "rejected": …}``: dialogues as texts, with ``Human:`` and ``Assistant:``, as in HH-RLHF."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether both answers are dialogues in one text, with no prompt beside them."""
        if {"prompt", "conversations", "instruction"} & row.keys():
            return False
        return all(isinstance(row.get(name), str) and _SPEAKER.search(row[name]) for name in _PAIR)

    def read(self, row: Mapping[str, Any]) -> Preference:
        """Return the pair."""
        chosen, rejected = (Conversation(_dialogue(row, name)) for name in ("chosen", "rejected"))
        return Preference(chosen, rejected, _margin(row))


class QuestionPair:
    """``{"question": …, "response_j": …, "response_k": …}``, as in StackExchange's pairs; the first is the better.

    The texts are put together as LMFlow's first script for DPO does, and used as they are.
    """

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether a question and both answers are there."""
        return {"question", "response_j", "response_k"} <= row.keys()

    def read(self, row: Mapping[str, Any]) -> Preference:
        """Return the pair."""
        prompt = f"Question: {text(row, 'question')}\n\nAnswer: "
        chosen, rejected = (Prompted(prompt, text(row, name)) for name in ("response_j", "response_k"))
        return Preference(chosen, rejected, _margin(row))


class Kto:
    """An answer with a verdict: ``messages`` or ``prompt`` and ``completion``, and ``label``: true where it is good."""

    def recognises(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a verdict and an answer."""
        return "label" in row and ("messages" in row or {"prompt", "completion"} <= row.keys())

    def read(self, row: Mapping[str, Any]) -> Judged:
        """Return the answer and the verdict."""
        example: Conversation | Prompted
        example = LmflowConversation().read(row) if "messages" in row else prompt_and_answer(row, "completion")
        return Judged(example, truth(row, "label"))


def _conversation(row: Mapping[str, Any], name: str) -> Conversation:
    try:
        return LmflowConversation().read(mapping(field(row, name), f"the field {name!r}"))
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _margin(row: Mapping[str, Any]) -> float | None:
    return number(row, "margin") if row.get("margin") is not None else None


def _is_chat(value: object) -> bool:
    return isinstance(value, list | Mapping)


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if "conversations" in row:
        return with_images(with_system(optional_text(row, "system"), sharegpt_messages(row)), row)
    if "instruction" in row:
        return alpaca_prompt(row)
    if "prompt" not in row:
        return ()
    if isinstance(row["prompt"], list):
        return with_images(openai_messages(row, "prompt"), row)
    return with_images(with_system(optional_text(row, "system"), [Message("user", text(row, "prompt"))]), row)


def _answer(row: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    value = field(row, name)
    if isinstance(value, list):
        return openai_messages(row, name)
    if not isinstance(value, Mapping):
        return (Message("assistant", text(row, name)),)
    try:
        return (sharegpt_message(value),) if "from" in value else openai_messages({name: [value]}, name)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _dialogue(row: Mapping[str, Any], name: str) -> tuple[Message, ...]:
    before, *turns = _SPEAKER.split(text(row, name))
    if before.strip() or not turns:
        raise ValueError(f"the field {name!r} must begin with 'Human:' or 'Assistant:'")
    spoken = zip(turns[::2], turns[1::2], strict=True)
    messages = tuple(Message(_SPEAKERS[speaker], said.strip()) for speaker, said in spoken)
    if not all(message.content for message in messages):
        raise ValueError(f"the field {name!r} holds an empty turn")
    return messages
