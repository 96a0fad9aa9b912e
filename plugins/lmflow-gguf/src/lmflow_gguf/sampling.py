"""llama.cpp's samplers: what makes of logits the tokens of an answer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from lmflow_core.api import RequestError
from lmflow_gguf.contexts import Context
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.runtime import Weights, library, reason
from lmflow_transformers.options import biases

_LONGEST_ANSWER = 65536


class Sampler:
    """A chain of llama.cpp's samplers, for one answer.

    Args:
        weights: of the model.
        options: how tokens are sampled.
        grammar: GBNF that the answer follows; None for any.
        seed: of the random choices.
        prompt: token ids.

    Raises:
        RequestError: llama.cpp refuses the grammar, or a bias is for no token of the model.
    """

    def __init__(
        self, weights: Weights, options: LlamaCppOptions, grammar: str | None, seed: int, prompt: Sequence[int]
    ) -> None:
        self._lib = lib = library()
        self._weights = weights
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        weakref.finalize(self, lib.llama_sampler_free, self._chain)
        for sampler in self._parts(options, grammar, seed, prompt):
            lib.llama_sampler_chain_add(self._chain, sampler)

    def _parts(self, options: LlamaCppOptions, grammar: str | None, seed: int, prompt: Sequence[int]) -> Iterator[Any]:
        if options.logit_bias:
            yield self._bias(biases(options.logit_bias))
        if grammar is not None:
            yield self._followed(grammar)
        if options.repetition_penalty != 1.0:
            yield self._penalties(options.repetition_penalty, prompt)
        lib = self._lib
        if options.temperature == 0:
            yield lib.llama_sampler_init_greedy()
            return
        yield lib.llama_sampler_init_temp(options.temperature)
        if options.top_k:
            yield lib.llama_sampler_init_top_k(options.top_k)
        if options.top_p < 1:
            yield lib.llama_sampler_init_top_p(options.top_p, 1)
        if options.min_p:
            yield lib.llama_sampler_init_min_p(options.min_p, 1)
        yield lib.llama_sampler_init_dist(seed)

    def _bias(self, by_token: dict[int, float]) -> Any:
        lib, size = self._lib, self._weights.size
        unknown = [token for token in by_token if token >= size]
        if unknown:
            raise RequestError(f"--logit-bias: the model has {size} tokens, and none with the id {unknown[0]}")
        items = (lib.llama_logit_bias * len(by_token))(*by_token.items())
        return lib.llama_sampler_init_logit_bias(size, len(by_token), items)

    def _followed(self, grammar: str) -> Any:
        made = self._lib.llama_sampler_init_grammar(self._weights.vocabulary, grammar.encode(), b"root")
        if not made:
            raise RequestError(f"llama.cpp refuses the grammar: {reason()}")
        return made

    def _penalties(self, penalty: float, prompt: Sequence[int]) -> Any:
        lib = self._lib
        made = lib.llama_sampler_init_penalties(self._weights.size, len(prompt) + _LONGEST_ANSWER, penalty, 0.0, 0.0)
        for token in prompt:
            lib.llama_sampler_accept(made, token)
        return made

    def accepted(self, context: Context, first: int, draft: Sequence[int]) -> list[int]:
        """Sample one token behind each drafted one for as long as the draft is what was sampled, and one more.

        A drafted token is kept only where the model itself samples it, so the distribution is the model's.

        Args:
            context: has evaluated the text with its draft.
            first: place in the last pass of the token before the draft; its logits, and those of the draft behind it,
                were kept.
            draft: the drafted tokens.
        """
        sampled: list[int] = []
        for place in range(len(draft) + 1):
            sampled.append(self._lib.llama_sampler_sample(self._chain, context.handle, first + place))
            if place == len(draft) or sampled[-1] != draft[place]:
                break
        return sampled

    def until_end(self, ids: Sequence[int], stop_ids: frozenset[int]) -> tuple[list[int], bool]:
        """Return ids up to the first stop, and whether there was one; an end of the model's own is left out."""
        for place, token in enumerate(ids):
            if token in stop_ids:
                return list(ids[: place + 1]), True
            if self._lib.llama_vocab_is_eog(self._weights.vocabulary, token):
                return list(ids[:place]), True
        return list(ids), False
