"""Decoders: ways to sample tokens from a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.spec import TORCH, Selector, Spec
from lmflow_core.contracts.tokens import Media


@dataclass(frozen=True)
class TokenLogprob:
    """How likely the model itself found a token, before temperature and the like.

    Attributes:
        logprob: natural logarithm of the token's probability.
        alternatives: the likeliest ids with theirs, likeliest first; as many as were asked for.
    """

    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class DecodeStep:
    """What a decoder gives at a time: one or more new token ids, in order.

    Attributes:
        ids: the new tokens.
        drafted: tokens a cheaper model or rule proposed for this step.
        accepted: how many of them were kept.
        passes: passes of the model itself that the step took.
        logprobs: one for each id, from a decoder whose option ``logprobs`` asks for them; else empty.
        dropped: tokens of the text that none from this step on sees any more, though those before it did.
    """

    ids: tuple[int, ...]
    drafted: int = 0
    accepted: int = 0
    passes: int = 1
    logprobs: tuple[TokenLogprob, ...] = ()
    dropped: int = 0


@dataclass(frozen=True)
class DecodingRequest:
    """What one answer is sampled by.

    Attributes:
        prompt: token ids.
        max_new_tokens: tokens of the answer at most.
        stop_ids: tokens that end it.
        seed: of its random choices.
        media: the images of the prompt; only decoders whose spec has ``images`` set are asked with any.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    seed: int = 0
    media: tuple[Media, ...] = ()


class Decoder(Protocol):
    """Target of a ``DecoderSpec``.

    A decoder must be cheap to make: a server makes one for each request that changes its options. What is heavy,
    such as a second model, is kept outside of it.
    """

    def prepare(self, model: LanguageModel, services: ModelServices) -> None:
        """Get ready to drive a loaded model, once before the first answer; ``services`` open a second one.

        Raises:
            LmflowError: the decoder cannot drive the model; the message names what would.
        """

    def decode(self, model: LanguageModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield new tokens after the prompt until a stop id (which is yielded last) or the limit."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How much is sampled at a time.

    Attributes:
        answers: most answers that are written at the same time; further ones wait.
        cache_tokens: most tokens whose keys and values are held, of all answers together; None lets the runtime choose
            by the memory that is free.
        interactive: whether somebody waits for each token. Prompts are then read in smaller parts, which takes longer,
            so that answers and short prompts wait less for a long one.
    """

    answers: int = 16
    cache_tokens: int | None = None
    interactive: bool = False

    def __post_init__(self) -> None:
        if self.answers < 1 or (self.cache_tokens is not None and self.cache_tokens < 1):
            raise ValueError("limits of a batch are at least 1")


@dataclass(frozen=True)
class BatchStep:
    """News of one answer of a batch.

    Attributes:
        ticket: what ``add`` returned for its request.
        step: its next tokens; None when it has ended.
        error: why it ended, where its decoder failed.
    """

    ticket: int
    step: DecodeStep | None
    error: Exception | None = None


class RunningBatch(Protocol):
    """Answers that are sampled together; requests join and leave between two steps. One thread drives it."""

    @property
    def cache_tokens(self) -> int | None:
        """How many tokens of prompts and answers fit into its cache; None where it has no limit."""

    @property
    def cache_bytes(self) -> int | None:
        """How much memory so many tokens take; None where that is not known."""

    def check(self, request: DecodingRequest, decoder: Decoder) -> None:
        """Check that a prompt and its longest answer fit the cache. Any thread may call this.

        Raises:
            RequestError: they do not, however long one waits.
        """

    def add(self, request: DecodingRequest, decoder: Decoder) -> int:
        """Let a request join as soon as there is room, behind those that wait already; return its ticket.

        Args:
            request: what is asked.
            decoder: samples this answer: the one that opened the batch, or one of the same kind with other options.

        Raises:
            RequestError: as :meth:`check` does.
        """

    def remove(self, ticket: int) -> None:
        """Forget a request, whether it waits or runs. Nothing happens when its answer has ended."""

    def step(self) -> Sequence[BatchStep]:
        """Go on with the answers by one pass of the model; return what came of it.

        An answer may get no token, one or several. Behind its last token, and once, comes the news that it has ended.
        """


class BatchDecoder(Decoder, Protocol):
    """A decoder that samples for several prompts at once; its spec has ``batches`` set.

    The tokens of each answer are those that ``decode`` gives, whatever is beside it in the batch.
    """

    def open_batch(self, model: LanguageModel, limits: BatchLimits) -> RunningBatch | None:
        """Return a batch of a loaded model, without requests; None where this model can only take one at a time."""


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(Spec):
    """A way to sample tokens from a model; ``target(options)`` satisfies ``Decoder``.

    Attributes:
        ``runtime``: that of the models it can drive.
        ``unbounded``: it goes on beyond a model's context, so that no prompt is too long for it.
        ``batches``: the target satisfies ``BatchDecoder``.
        ``images``: its prompts may show images, to a model that sees.
        ``exact``: greedy, the answer is the model's own likeliest tokens; sampled, it follows the model's own
            distribution; as long as nothing of the text is dropped.

    Example::

        @hookimpl
        def lmflow_register_decoders():
            yield DecoderSpec(
                name="contrastive", target="lmflow_contrastive.decoder:Contrastive", summary="Contrastive search."
            )
    """

    kind: ClassVar[str] = "decoder"
    contract: ClassVar[type | None] = Decoder
    selector: ClassVar[Selector | None] = Selector(
        "decoder",
        "Way of sampling tokens; the model decides when left out.",
        dict.fromkeys(("generate", "chat", "evaluate --reward")),
    )
    runtime: str = TORCH
    unbounded: bool = False
    batches: bool = False
    images: bool = False
    exact: bool = False

    def contracts(self) -> tuple[type, ...]:
        """Return the protocols that the target of this very spec satisfies."""
        return (Decoder, BatchDecoder) if self.batches else (Decoder,)
