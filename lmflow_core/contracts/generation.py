"""Generation: answers as text, and models that give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lmflow_core.contracts.decoder import TokenLogprob
from lmflow_core.contracts.examples import Message, ToolCall
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DecodingSettings
from lmflow_core.options import OptionField


@dataclass(frozen=True)
class DrawnToken:
    """A token of an answer.

    Attributes:
        id: the token.
        text: what it adds to the answer; of several tokens that make up one character, the last adds it.
        offset: where that begins in the answer, in characters.
        logprob: its probability, when it was asked for.
    """

    id: int
    text: str
    offset: int
    logprob: TokenLogprob | None = None


class AnswerStream(Protocol):
    """An answer that is written while one iterates over its text, once, in the thread that iterates.

    Attributes:
        prompt_tokens: length of the prompt, known before anything is written.
        text: the text so far.
        drawn: the tokens so far, without the token that ends the answer. The last ones may belong to a stop text,
            which is not part of the answer: their offset is not below the length of the finished text.
        tokens: number of tokens drawn, the one that ends the answer included; known at the end.
        drafted: tokens that were drafted for the answer, none by most decoders; known at the end.
        accepted: how many of them were kept; known at the end.
        finish_reason: ``stop``, ``length`` or ``cancelled``; known at the end.
        dropped_tokens: how many tokens of prompt and answer the last one did not see, from a decoder that drops some.
    """

    prompt_tokens: int
    text: str
    drawn: list[DrawnToken]
    tokens: int
    drafted: int
    accepted: int
    finish_reason: str
    dropped_tokens: int

    def __iter__(self) -> Iterator[str]: ...

    def cancel(self) -> None:
        """End the answer before its next token. Another thread may call this."""


class TalkingModel(Protocol):
    """A loaded model with its template and decoder, ready to answer. It keeps no conversation.

    ``name`` is what the command line calls the model.
    """

    name: str
    model: LanguageModel
    settings: DecodingSettings

    @property
    def context_length(self) -> int | None:
        """How many tokens prompt and answer may have together.

        None where there is no limit: the model does not tell one, or the decoder goes on beyond it.
        """

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with: the system prompt of the command line, if any."""

    def answer(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> AnswerStream:
        """Return the answer to a conversation that ends with the user or the result of a tool.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools.
        """

    def read_calls(self, text: str) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools, as the template does."""

    def complete(self, prompt: str) -> AnswerStream:
        """Return what follows a plain text, without a template."""

    def changed(self, **values: object) -> TalkingModel:
        """Return the same model with other values of the decoder's options or of ``max_new_tokens, stop, seed``.

        Raises:
            OptionError: the decoder has no such option, or the value is out of range.
        """

    def parameters(self) -> Sequence[tuple[OptionField, object]]:
        """Return what :meth:`changed` can change, with its values."""


class ModelOpener(Protocol):
    """Opens models that answer, by the names that ``--model`` and ``--decoder`` take."""

    def __call__(self, **changes: object) -> TalkingModel:
        """Load what the command line names, or with other values for some of its options: ``model``, ``decoder``, ….

        The model loaded last is not loaded anew where only other options change.

        Raises:
            LmflowError: the model, template or decoder cannot be used.
        """

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind: ``model`` or ``decoder``."""
