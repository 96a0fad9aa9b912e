"""Conversation templates as data: one description renders segments for training and Jinja for everybody else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmflow_core.conversations import Message, Segment, check_turns

SLOT = "{content}"


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A template whose turns are texts around a ``{content}``.

    ``{bos}`` and ``{eos}`` stand for the tokenizer's own tokens and are filled in by :meth:`bind`.

    Attributes:
        begin: text before the first turn.
        system: the system turn; None when the model knows no system prompt.
        user: a user's turn.
        assistant_header: what opens an assistant's turn; it ends the prompt when an answer is asked for.
        assistant: what the model writes: its content and its stop. This alone is trained on.
        assistant_end: what follows an assistant's turn and is not trained on.
        stop: texts that end an answer.
        default_system: the system prompt of a conversation that has none.
        system_in_user: the system turn is rendered inside the first user's turn, before its content.
        strip: contents are stripped of white space at both ends.
    """

    user: str
    assistant: str
    stop: tuple[str, ...]
    begin: str = ""
    system: str | None = None
    assistant_header: str = ""
    assistant_end: str = ""
    default_system: str | None = None
    system_in_user: bool = False
    strip: bool = False

    def __post_init__(self) -> None:
        for text in (self.user, self.assistant, self.system if self.system is not None else SLOT):
            if text.count(SLOT) != 1:
                raise ValueError(f"a turn of a template must hold {SLOT} once: {text!r}")

    def bind(self, bos: str | None, eos: str | None) -> ChatTemplate:
        """Return the template with the tokenizer's own tokens in place of ``{bos}`` and ``{eos}``."""

        def filled(value: object) -> object:
            if isinstance(value, str):
                return value.replace("{bos}", bos or "").replace("{eos}", eos or "")
            if isinstance(value, tuple):
                return tuple(text for text in map(filled, value) if text)
            return value

        values = {field.name: filled(getattr(self, field.name)) for field in dataclasses.fields(self)}
        values["default_system"] = self.default_system
        return ChatTemplate(**values)  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes a rendering."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation as segments.

        Raises:
            ValueError: the roles are out of order, or there is a system message and no place for it.
        """
        check_turns(messages)
        segments = [*self._segments(messages)]
        if add_generation_prompt:
            segments.append(Segment(self.assistant_header, control=True))
        return tuple(segment for segment in segments if segment.text)

    def _segments(self, messages: Sequence[Message]) -> Iterator[Segment]:
        system = self.default_system
        if messages[0].role == "system":
            system, messages = messages[0].content, messages[1:]
        if system is not None and self.system is None:
            raise ValueError("the template has no place for a system message")
        yield Segment(self.begin, control=True)
        lead: list[Segment] = [] if system is None else [*self._turn(self.system or SLOT, system)]
        if not self.system_in_user:
            yield from lead
            lead = []
        for message in messages:
            if message.role == "user":
                yield from self._turn(self.user, message.content, lead)
                lead = []
            else:
                yield Segment(self.assistant_header, control=True)
                yield from self._turn(self.assistant, message.content, trainable=True)
                yield Segment(self.assistant_end, control=True)

    def _turn(
        self, pattern: str, content: str, lead: Sequence[Segment] = (), trainable: bool = False
    ) -> Iterator[Segment]:
        before, after = pattern.split(SLOT)
        yield Segment(before, trainable, control=True)
        yield from lead
        yield Segment(content.strip() if self.strip else content, trainable)
        yield Segment(after, trainable, control=True)

    def to_jinja(self) -> str:
        """Return a Jinja chat template that renders the same text for every conversation :meth:`render` takes."""
        trim = "|trim" if self.strip else ""
        lines = [
            "{%- if messages and messages[0]['role'] == 'system' -%}",
            "{%- set system = messages[0]['content'] -%}{%- set turns = messages[1:] -%}",
            "{%- else -%}",
            f"{{%- set system = {_literal(self.default_system)} -%}}{{%- set turns = messages -%}}",
            "{%- endif -%}",
            f"{{{{- {_literal(self.begin)} -}}}}",
            *self._jinja_system(trim),
            "{%- for message in turns -%}",
            "{%- if message['role'] == 'user' -%}",
            f"{{{{- {self._jinja_user(trim)} -}}}}",
            "{%- elif message['role'] == 'assistant' -%}",
            f"{{{{- {self._jinja_assistant(trim)} -}}}}",
            "{%- else -%}{{- raise_exception('unexpected role: ' + message['role']) -}}{%- endif -%}",
            "{%- endfor -%}",
            f"{{%- if add_generation_prompt -%}}{{{{- {_literal(self.assistant_header)} -}}}}{{%- endif -%}}",
        ]
        return "".join(lines)

    def _jinja_system(self, trim: str) -> Iterator[str]:
        if self.system is None:
            yield "{%- if system is not none -%}{{- raise_exception('no place for a system message') -}}{%- endif -%}"
            return
        before, after = self.system.split(SLOT)
        rendered = f"{_literal(before)} + (system{trim}) + {_literal(after)}"
        if self.system_in_user:
            yield f"{{%- set lead = '' if system is none else {rendered} -%}}"
        else:
            yield f"{{%- if system is not none -%}}{{{{- {rendered} -}}}}{{%- endif -%}}"

    def _jinja_user(self, trim: str) -> str:
        before, after = self.user.split(SLOT)
        lead = "(lead if loop.first else '') + " if self.system_in_user and self.system is not None else ""
        return f"{_literal(before)} + {lead}(message['content']{trim}) + {_literal(after)}"

    def _jinja_assistant(self, trim: str) -> str:
        before, after = self.assistant.split(SLOT)
        opening = _literal(self.assistant_header + before)
        return f"{opening} + (message['content']{trim}) + {_literal(after + self.assistant_end)}"


def _literal(text: str | None) -> str:
    return "none" if text is None else json.dumps(text, ensure_ascii=False)
