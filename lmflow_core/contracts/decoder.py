"""Decoders: ways to sample tokens from a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.spec import TORCH, Selector, Spec


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
    """

    prompt: Sequence[int]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    seed: int = 0


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


class BatchDecoder(Decoder, Protocol):
    """A decoder that samples for several prompts at once; its spec has ``batches`` set."""

    def decode_many(
        self, model: LanguageModel, requests: Sequence[DecodingRequest]
    ) -> Iterator[tuple[int, DecodeStep]]:
        """Yield steps with the index of their request; the tokens of each are those that ``decode`` gives."""


@dataclass(frozen=True, kw_only=True)
class DecoderSpec(Spec):
    """A way to sample tokens from a model; ``target(options)`` satisfies ``Decoder``.

    Attributes:
        ``runtime``: that of the models it can drive.
        ``unbounded``: it goes on beyond a model's context, so that no prompt is too long for it.
        ``batches``: the target satisfies ``BatchDecoder``.

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
        "decoder", "Way of sampling tokens; the model decides when left out.", {"generate": None, "chat": None}
    )
    runtime: str = TORCH
    unbounded: bool = False
    batches: bool = False

    def contracts(self) -> tuple[type, ...]:
        """Return the protocols that the target of this very spec satisfies."""
        return (Decoder, BatchDecoder) if self.batches else (Decoder,)
