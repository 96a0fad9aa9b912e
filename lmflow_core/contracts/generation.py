"""Generation: answers as text, and models that give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lmflow_core.contracts.decoder import BatchLimits, TokenLogprob
from lmflow_core.contracts.examples import Message, ToolCall
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DecodingSettings
from lmflow_core.options import OptionField


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer that is written.

    Attributes:
        ids: its tokens, the one that ended it included.
        text: what they say, without what ended it.
        finish_reason: ``stop`` or ``length``.
    """

    ids: tuple[int, ...]
    text: str
    finish_reason: str


@dataclass(frozen=True)
class SampledToken:
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
        text: the text so far.
        drafted: tokens that were drafted for the answer, none by most decoders; known at the end.
        accepted: how many of them were kept; known at the end.
        finish_reason: ``stop``, ``length`` or ``cancelled``; known at the end.
        dropped_tokens: how many tokens of prompt and answer the last one did not see, from a decoder that drops some.
    """

    text: str
    drafted: int
    accepted: int
    finish_reason: str
    dropped_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt, known before anything is written."""

    @property
    def max_new_tokens(self) -> int:
        """How many tokens the answer may have: those asked for, or what the context leaves of them."""

    @property
    def sampled(self) -> Sequence[SampledToken]:
        """The tokens so far, without the token that ends the answer.

        The last ones may belong to a stop text, which is not part of the answer: their offset is not below the length
        of the finished text.
        """

    @property
    def tokens(self) -> int:
        """Number of tokens sampled, the one that ends the answer included."""

    def __iter__(self) -> Iterator[str]: ...

    def cancel(self) -> None:
        """End the answer before its next token. Another thread may call this."""


@dataclass(frozen=True)
class Written:
    """What a step of a batch added to one of its answers.

    Attributes:
        answer: the one that goes on.
        text: what can be shown now; often empty.
        ended: whether it has all its text.
        error: why it ended before that, where its decoder failed.
    """

    answer: AnswerStream
    text: str
    ended: bool = False
    error: Exception | None = None


class AnswerBatch(Protocol):
    """Answers of one model that are written together; others join and leave between steps. One thread drives it.

    An answer that somebody cancels ends with the next step.
    """

    @property
    def cache_tokens(self) -> int | None:
        """How many tokens of prompts and answers are held at most; None where there is no limit."""

    @property
    def cache_bytes(self) -> int | None:
        """How much memory they take; None where that is not known."""

    def __len__(self) -> int:
        """Return how many answers wait or are being written."""

    def check(self, answer: AnswerStream) -> None:
        """Check that an answer fits the cache when it has all tokens it may have. Any thread may call this.

        Raises:
            RequestError: it does not.
        """

    def add(self, answer: AnswerStream) -> None:
        """Let an answer of the same model join as soon as there is room; nobody may have iterated over it.

        Raises:
            RequestError: it does not fit the cache.
        """

    def step(self) -> Sequence[Written]:
        """Go on with the answers by one pass of the model; return what came of it."""

    def write(self, answers: Iterable[AnswerStream]) -> Iterator[AnswerStream]:
        """Write answers to their ends and yield them, in the order given; each is asked for when there is room for it.

        Raises:
            RequestError: an answer does not fit the cache.
            Exception: what the decoder of an answer failed with.
        """


class ChatModel(Protocol):
    """A loaded model with its template and decoder, ready to answer. It keeps no conversation.

    ``name`` is what the command line calls the model.
    """

    name: str
    model: LanguageModel
    settings: DecodingSettings

    @property
    def decoder_name(self) -> str:
        """What the command line calls the decoder."""

    @property
    def context_length(self) -> int | None:
        """How many tokens prompt and answer may have together.

        None where there is no limit: the model does not tell one, or the decoder goes on beyond it.
        """

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with: the system prompt of the command line, if any."""

    def answer(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> AnswerStream:
        """Return the answer to a conversation that ends with the user or the result of a tool.

        It may have as many tokens as the context leaves room for, ``settings.max_new_tokens`` at most.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools, or an image cannot be read or
                taken.
            PromptTooLongError: the prompt leaves no room in the context for a token.
        """

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools, as the template does."""

    def complete(self, prompt: str) -> AnswerStream:
        """Return what follows a plain text, without a template.

        Raises:
            PromptTooLongError: the text leaves no room in the context for a token.
        """

    @property
    def batches(self) -> bool:
        """Whether answers of one batch are sampled together; else each waits for the step of the others."""

    def open_batch(self, limits: BatchLimits) -> AnswerBatch:
        """Return a batch for answers of this model, and of those that :meth:`changed` makes of it."""

    def changed(self, **values: object) -> ChatModel:
        """Return the same model with other values of the decoder's options or of ``max_new_tokens, stop, seed``.

        Raises:
            OptionError: the decoder has no such option, or the value is out of range.
            LmflowError: with these options, the decoder cannot drive the model.
        """

    def parameters(self) -> Sequence[tuple[OptionField, object]]:
        """Return what :meth:`changed` can change, with its values."""


class ModelOpener(Protocol):
    """Opens models that answer, by the names that ``--model`` and ``--decoder`` take."""

    def __call__(self, **changes: object) -> ChatModel:
        """Load what the command line names, or with other values for some of its options: ``model``, ``decoder``, ….

        The model loaded last is not loaded anew where only other options change.

        Raises:
            LmflowError: the model, template or decoder cannot be used.
        """

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind: ``model`` or ``decoder``."""
