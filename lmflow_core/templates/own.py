"""A chat template in Jinja, a model's own or a user's, with a mask that is verified by rendering.

Jinja gives one text and does not say where in it the contents are, nor which of it the model writes. So a conversation
is rendered again with marks in place of its contents, and once more up to each answer. What does not come out as it
must is refused: a mask is right, or there is none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lmflow_core.contracts.examples import ImagePart, Message, Segment, check_turns, is_trained
from lmflow_core.contracts.tokens import Tokenizer
from lmflow_core.templates.sandbox import TemplateLimitError

_MARK = "LMFLOW{}X"
_MARKS = re.compile(_MARK.format(r"(\d+)"))
_INSTEAD = "choose a template that LMFlow knows with --template NAME"


@dataclass(frozen=True)
class _Piece:
    """A part of a rendering, of the template or from the data, and what stands for it where contents are marked."""

    marked: str
    text: str
    from_data: bool = False


class JinjaTemplate:
    """A Jinja chat template, rendered by the tokenizer in its sandbox.

    Raises:
        ValueError: the template does not end an answer with a control token.
    """

    def __init__(self, tokenizer: Tokenizer, jinja: str) -> None:
        self._tokenizer = tokenizer
        self._jinja = jinja
        self.stop = (self._find_stop(),)

    @property
    def fingerprint(self) -> str:
        """A digest of the Jinja text."""
        return hashlib.sha256(self._jinja.encode()).hexdigest()[:16]

    def bind(self, bos: str | None, eos: str | None) -> JinjaTemplate:
        """Return the template itself: it has its tokenizer."""
        return self

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        """Return None: Jinja does not say how calls are written."""

    def to_jinja(self) -> str:
        """Return the Jinja text."""
        return self._jinja

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation as segments.

        Raises:
            ValueError: the template refuses the conversation, or what is trained on cannot be told for sure.
        """
        check_turns(messages)
        messages = [_plain(message) for message in messages]
        self._check_free_of_controls(messages, tools)
        # Marks stand for the contents alone, so what lies between them is the template's, and what stands for them in
        # the true rendering is from the data and never becomes a control token.
        marked = _marked(messages)
        skeleton = self._text(marked, add_generation_prompt, tools)
        pieces = _aligned(skeleton, self._text(messages, add_generation_prompt, tools), messages)
        try:
            spans = [*self._trained_spans(messages, marked, skeleton, tools)]
        except ValueError:
            if not add_generation_prompt:
                raise
            spans = []  # nothing is trained on a prompt
        return tuple(_segments(pieces, spans))

    def _text(self, messages: Sequence[Message], prompt: bool, tools: Sequence[Mapping[str, Any]]) -> str:
        try:
            text = self._tokenizer.render_chat(messages, prompt, tools, self._jinja)
        except TemplateLimitError as error:
            raise ValueError(str(error)) from error
        if text is None:
            raise ValueError(f"the chat template refuses this conversation: {_INSTEAD}")
        return text

    def _check_free_of_controls(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """Refuse control tokens in tools and calls, which are written as JSON and cannot be told from the template."""
        calls = [[call.name, dict(call.arguments)] for message in messages for call in message.tool_calls]
        if not tools and not calls:
            return
        written = json.dumps([*tools, *calls], ensure_ascii=False)
        found = self._controls.search(written)
        if found:
            raise ValueError(f"a tool or a call of one holds the control token {found[0]!r}: {_INSTEAD}")

    def _trained_spans(
        self, messages: Sequence[Message], marked: Sequence[Message], skeleton: str, tools: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, int]]:
        """Yield the parts of the marked rendering that are trained on, each an answer with its stop."""
        for at, message in enumerate(messages):
            left_out = self._writes_reasoning and (marked[at].reasoning or "") not in skeleton
            if not is_trained(message) or left_out:
                continue  # an answer whose reasoning is left out would teach the model to give it without any
            if message.role == "user":
                yield from self._user_span(at, skeleton)
                continue
            # An answer is what follows its prompt. A template may render earlier turns otherwise once there are later
            # ones; then the model would be asked with another prompt than it was trained behind.
            prompt = self._text(marked[:at], True, tools)
            if not skeleton.startswith(prompt):
                raise ValueError(
                    f"the chat template does not repeat the prompt of turn {at + 1} before its answer, so that the "
                    f"model would not be trained on what it writes: {_INSTEAD}, or train only on the last answer "
                    "with --train-on last"
                )
            yield len(prompt), self._end_of_answer(at, message, skeleton, len(prompt))

    def _user_span(self, at: int, skeleton: str) -> Iterator[tuple[int, int]]:
        mark = _content_mark(at)
        start = skeleton.find(mark)
        if start >= 0:
            end = start + len(mark)
            yield start, end + len(self.stop[0]) * skeleton.startswith(self.stop[0], end)

    def _end_of_answer(self, at: int, message: Message, skeleton: str, start: int) -> int:
        # The stop counts only behind the content. Between the two must be nothing of another turn's: else the template
        # leaves this answer out, and the mark that was found is that of a later one.
        written = skeleton.find(_content_mark(at), start) if message.text.strip() else start
        end = skeleton.find(self.stop[0], written) if written >= 0 else -1
        others = (int(found[1]) // 2 for found in _MARKS.finditer(skeleton, start, max(end, start)))
        if end < 0 or any(other != at for other in others):
            raise ValueError(
                f"the chat template does not write the answer of turn {at + 1} and {self.stop[0]!r} behind it: "
                f"{_INSTEAD}, or train only on the last answer with --train-on last"
            )
        return end + len(self.stop[0])

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        longest_first = sorted(self._tokenizer.control_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def _writes_reasoning(self) -> bool:
        reasoned = _marked((Message("user", "a"), Message("assistant", "b", reasoning="t")))
        return _reasoning_mark(1) in self._text(reasoned, False, ())

    def _find_stop(self) -> str:
        marked = _marked((Message("user", "a"), Message("assistant", "b")))
        text = self._text(marked, False, ())
        found = self._controls.search(text, max(text.find(_content_mark(1)), 0))
        if found is None or _content_mark(1) not in text:
            raise ValueError(f"the chat template ends an answer with no control token: {_INSTEAD}")
        return found[0]


def _plain(message: Message) -> Message:
    """Return a message whose content is one text.

    Raises:
        ValueError: it holds an image; where a Jinja template puts one does not show in the text it renders.
    """
    if isinstance(message.content, str):
        return message
    if any(isinstance(part, ImagePart) for part in message.content):
        raise ValueError(f"images are not supported with a model's own or a Jinja chat template: {_INSTEAD}")
    return replace(message, content=message.text)


def _content_mark(at: int) -> str:
    return _MARK.format(2 * at)


def _reasoning_mark(at: int) -> str:
    return _MARK.format(2 * at + 1)


def _marked(messages: Sequence[Message]) -> list[Message]:
    """Put marks in place of contents and reasoning; white space stays, which templates treat as they do nothing."""
    if any(_MARKS.search(f"{message.text} {message.reasoning}") for message in messages):
        raise ValueError(f"a content holds {_MARK.format('1')!r}, with which LMFlow marks contents: {_INSTEAD}")
    return [
        replace(
            message,
            content=_content_mark(at) if message.text.strip() else message.text,
            reasoning=_reasoning_mark(at) if (message.reasoning or "").strip() else message.reasoning,
        )
        for at, message in enumerate(messages)
    ]


def _aligned(skeleton: str, text: str, messages: Sequence[Message]) -> list[_Piece]:
    """Return the pieces of a rendering, found with the marks of its skeleton.

    Raises:
        ValueError: the template changes a content, or writes something else for it.
    """
    parts = _MARKS.split(skeleton)
    pieces = [_Piece(parts[0], parts[0])]
    position = len(parts[0])
    for number, literal in zip(parts[1::2], parts[2::2], strict=True):
        at, is_reasoning = divmod(int(number), 2)
        written = (messages[at].reasoning or "") if is_reasoning else messages[at].text
        content = _found(written, literal, text, position)
        pieces += [_Piece(_MARK.format(number), content, from_data=True), _Piece(literal, literal)]
        position += len(content) + len(literal)
    if "".join(piece.text for piece in pieces) != text:
        raise ValueError(f"the chat template changes the text of a message: {_INSTEAD}")
    return pieces


def _found(content: str, literal: str, text: str, position: int) -> str:
    """Return a content as it stands in a text, before a literal of the template: stripped, or as in JSON."""
    forms = [content, content.rstrip(), content.lstrip(), content.strip(), content.strip("\n"), content.lstrip("\n")]
    for form in [*forms, json.dumps(content, ensure_ascii=False)[1:-1]]:
        if text.startswith(form + literal, position):
            return form
    raise ValueError(f"the chat template changes the text of a message: {_INSTEAD}")


def _segments(pieces: Sequence[_Piece], spans: Sequence[tuple[int, int]]) -> Iterator[Segment]:
    """Cut pieces where a span begins or ends; positions are those of the marked rendering."""
    borders = sorted({border for span in spans for border in span})
    start = 0
    for piece in pieces:
        end = start + len(piece.marked)
        if piece.from_data:
            yield Segment(piece.text, any(first <= start < last for first, last in spans))
        else:
            cuts = [start, *(border for border in borders if start < border < end), end]
            for left, right in itertools.pairwise(cuts):
                trained = any(first <= left < last for first, last in spans)
                if left < right:
                    yield Segment(piece.text[left - start : right - start], trained, control=True)
        start = end
