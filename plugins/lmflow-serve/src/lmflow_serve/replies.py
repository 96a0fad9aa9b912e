"""Answers in the form of OpenAI's interface, whole and in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lmflow_core.api import AnswerStream, SampledToken, Tokenizer, ToolCall

Document = dict[str, Any]
ReadCalls = Callable[[str], tuple[str, tuple[ToolCall, ...]]]


class Reply:
    """One choice of a reply of either endpoint.

    Args:
        head: what all documents of the reply begin with; see :func:`reply_head`.
        index: number of the choice.
        tokenizer: tells the texts of tokens.
        tells: whether the request asked for probabilities.
        read_calls: splits an answer into content and calls, where the request offered tools.
    """

    prefix = ""
    whole_object = ""
    piece_object = ""

    def __init__(
        self, head: Document, index: int, tokenizer: Tokenizer, tells: bool, read_calls: ReadCalls | None = None
    ) -> None:
        self._head = head
        self._index = index
        self._tokenizer = tokenizer
        self._tells = tells
        self._read_calls = read_calls

    def whole(self, answer: AnswerStream, tokens: Sequence[SampledToken]) -> Document:
        """Return the choice of a finished answer."""
        return self._choice(self._content(answer.text, whole=True), tokens, answer.finish_reason)

    def opening(self) -> Iterable[Document]:
        """Return what a stream begins with."""
        return ()

    def piece(self, text: str, tokens: Sequence[SampledToken]) -> Iterable[Document]:
        """Return a piece of a stream."""
        yield self._chunk([self._choice(self._content(text), tokens, None)])

    def ending(self, answer: AnswerStream) -> Iterable[Document]:
        """Return what a stream ends with."""
        yield self._chunk([self._choice(self._content(""), (), answer.finish_reason)])

    def _chunk(self, choices: list[Document]) -> Document:
        return {**self._head, "object": self.piece_object, "choices": choices}

    def _choice(self, content: Document, tokens: Sequence[SampledToken], reason: str | None) -> Document:
        told = self._logprobs(tokens) if self._tells and tokens else None
        return {"index": self._index, **content, "logprobs": told, "finish_reason": reason}

    def _content(self, text: str, *, whole: bool = False) -> Document:
        raise NotImplementedError

    def _logprobs(self, tokens: Sequence[SampledToken]) -> Document:
        raise NotImplementedError

    def _alternatives(self, token: SampledToken) -> list[tuple[str, float]]:
        assert token.logprob is not None
        return [(token_text(self._tokenizer, number), value) for number, value in token.logprob.alternatives]


class ChatReply(Reply):
    """A reply of ``/v1/chat/completions``."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def __init__(
        self, head: Document, index: int, tokenizer: Tokenizer, tells: bool, read_calls: ReadCalls | None = None
    ) -> None:
        super().__init__(head, index, tokenizer, tells, read_calls)
        self._held: list[SampledToken] = []

    def whole(self, answer: AnswerStream, tokens: Sequence[SampledToken]) -> Document:
        """Return the choice of a finished answer, its calls apart from its content."""
        choice = super().whole(answer, tokens)
        content, calls = self._split(answer.text)
        if calls:
            choice["message"] |= {"content": content or None, "tool_calls": calls}
            choice["finish_reason"] = "tool_calls"
        return choice

    def piece(self, text: str, tokens: Sequence[SampledToken]) -> Iterable[Document]:
        """Return a piece of a stream; where tools are offered, an answer is held back until its calls are known."""
        if self._read_calls is None:
            yield from super().piece(text, tokens)
        else:
            self._held += tokens

    def ending(self, answer: AnswerStream) -> Iterable[Document]:
        """Return what a stream ends with: before the reason, what was held back."""
        if self._read_calls is None:
            yield from super().ending(answer)
            return
        content, calls = self._split(answer.text)
        if content:
            yield self._chunk([self._choice({"delta": {"content": content}}, self._held, None)])
        if calls:
            listed = [{"index": at, **call} for at, call in enumerate(calls)]
            yield self._chunk([self._choice({"delta": {"tool_calls": listed}}, (), None)])
        (last,) = super().ending(answer)
        if calls:
            last["choices"][0]["finish_reason"] = "tool_calls"
        yield last

    def _split(self, text: str) -> tuple[str, list[Document]]:
        """Return the content and the calls of an answer."""
        if self._read_calls is None:
            return text, []
        content, calls = self._read_calls(text)
        return content, [_call(call) for call in calls]

    def opening(self) -> Iterable[Document]:
        """Return the piece that says who speaks."""
        yield self._chunk([self._choice({"delta": {"role": "assistant", "content": ""}}, (), None)])

    def _content(self, text: str, *, whole: bool = False) -> Document:
        if whole:
            return {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"delta": {"content": text} if text else {}}

    def _logprobs(self, tokens: Sequence[SampledToken]) -> Document:
        return {"content": [self._token(token) for token in tokens], "refusal": None}

    def _token(self, token: SampledToken) -> Document:
        assert token.logprob is not None
        alternatives = [_with_bytes(text, value) for text, value in self._alternatives(token)]
        return {**_with_bytes(token.text, token.logprob.logprob), "top_logprobs": alternatives}


class CompletionReply(Reply):
    """A reply of ``/v1/completions``."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    piece_object = "text_completion"

    def _content(self, text: str, *, whole: bool = False) -> Document:
        return {"text": text}

    def _logprobs(self, tokens: Sequence[SampledToken]) -> Document:
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob.logprob for token in tokens if token.logprob],
            "top_logprobs": [dict(self._alternatives(token)) for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }


def reply_head(kind: type[Reply], model: str) -> Document:
    """Return what all documents of a reply begin with."""
    return {"id": f"{kind.prefix}{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def usage(answers: Sequence[AnswerStream]) -> Document:
    """Return how many tokens the finished answers to one prompt took."""
    prompt, written = answers[0].prompt_tokens, sum(answer.tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def token_text(tokenizer: Tokenizer, number: int) -> str:
    """Return the text of a token as it stands behind others: some tokenizers drop the space before a first one."""
    return tokenizer.decode([number, number])[len(tokenizer.decode([number])) :]


def _call(call: ToolCall) -> Document:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _with_bytes(text: str, logprob: float) -> Document:
    """Return a token in the form of the chat endpoint; part of a character has no bytes that could be told."""
    whole = bool(text) and "\ufffd" not in text
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}
