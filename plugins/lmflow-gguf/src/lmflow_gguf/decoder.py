"""Decoding by llama.cpp: its samplers, grammars, prompt cache, and drafts looked up in the text so far."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmflow_core.api import DecodeStep, DecodingRequest, ModelError, ModelServices, RequestError
from lmflow_gguf.model import LlamaCppModel
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.runtime import Session, Weights, library, part, reason

_LONGEST_NGRAM = 3
_LONGEST_ANSWER = 65536


class LlamaCppDecoder:
    """Samples tokens with llama.cpp."""

    def __init__(self, options: LlamaCppOptions | None = None) -> None:
        self._options = options or LlamaCppOptions()
        self._grammar = _grammar(self._options)

    def prepare(self, model: LlamaCppModel, services: ModelServices) -> None:
        """Do nothing: every model of llama.cpp can be sampled from."""

    def decode(self, model: LlamaCppModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield new tokens; several at a time where a draft held.

        Raises:
            ModelError: the prompt and the answer do not fit into memory.
        """
        options = self._options
        room = len(request.prompt) + request.max_new_tokens + options.prompt_lookup
        session = model.session(room, options.threads, request.prompt)
        try:
            yield from self._decoded(model, session, request)
        finally:
            model.give_back(session)

    def _decoded(self, model: LlamaCppModel, session: Session, request: DecodingRequest) -> Iterator[DecodeStep]:
        prompt, most = request.prompt, request.max_new_tokens
        cache = _PromptCache(self._options.prompt_cache, model, session)
        cache.load()
        cached = session.reuse(prompt)
        session.evaluate(prompt[cached:])
        cache.save()
        sampler = _Sampler(model.weights, self._options, self._grammar, request.seed, prompt)
        draft: list[int] = []
        written: list[int] = []
        while True:
            sampled = _accepted(session, sampler, draft)[: most - len(written)]
            ids, ended = _until_end(sampled, request.stop_ids, sampler)
            written += ids
            if ids:
                yield DecodeStep(tuple(ids), drafted=len(draft), accepted=len(ids) - 1)
            if ended or len(written) == most:
                return
            draft = self._draft([*prompt, *written], most - len(written)) if model.weights.forgets else []
            # Of the cache only what was accepted stays; the last token is not evaluated yet.
            session.keep(len(prompt) + len(written) - 1)
            session.evaluate([written[-1], *draft], outputs=bool(draft))

    def _draft(self, ids: Sequence[int], room: int) -> list[int]:
        if not self._options.prompt_lookup or room <= 1:
            return []
        length = min(self._options.prompt_lookup, room - 1)
        look_up = part("llama_speculative").LlamaPromptLookupDecoding(_LONGEST_NGRAM, length)
        return [int(token) for token in look_up(np.array(ids, dtype=np.intc))]


def _accepted(session: Session, sampler: _Sampler, draft: Sequence[int]) -> list[int]:
    """Sample one token behind each drafted one for as long as the draft is what was sampled, and one more.

    A drafted token is kept only where the model itself samples it, so the distribution is the model's.
    """
    sampled: list[int] = []
    for place in range(len(draft) + 1):
        token = sampler.sample(session, place if draft else -1)
        sampled.append(token)
        if place == len(draft) or token != draft[place]:
            break
    return sampled


def _until_end(ids: Sequence[int], stop_ids: frozenset[int], sampler: _Sampler) -> tuple[list[int], bool]:
    """Return ids up to the first stop, and whether there was one; an end of the model's own is left out."""
    for place, token in enumerate(ids):
        if token in stop_ids:
            return list(ids[: place + 1]), True
        if sampler.ends(token):
            return list(ids[:place]), True
    return list(ids), False


class _Sampler:
    """A chain of llama.cpp's samplers."""

    def __init__(
        self, weights: Weights, options: LlamaCppOptions, grammar: str | None, seed: int, prompt: Sequence[int]
    ) -> None:
        self._lib = lib = library()
        self._vocabulary = weights.vocabulary
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        weakref.finalize(self, lib.llama_sampler_free, self._chain)
        for sampler in self._parts(weights, options, grammar, seed, prompt):
            lib.llama_sampler_chain_add(self._chain, sampler)

    def _parts(
        self, weights: Weights, options: LlamaCppOptions, grammar: str | None, seed: int, prompt: Sequence[int]
    ) -> Iterator[Any]:
        lib = self._lib
        if grammar is not None:
            made = lib.llama_sampler_init_grammar(weights.vocabulary, grammar.encode(), b"root")
            if not made:
                raise RequestError(f"llama.cpp refuses the grammar: {reason()}")
            yield made
        if options.repetition_penalty != 1.0:
            penalties = lib.llama_sampler_init_penalties(
                weights.size, len(prompt) + _LONGEST_ANSWER, options.repetition_penalty, 0.0, 0.0
            )
            for token in prompt:
                lib.llama_sampler_accept(penalties, token)
            yield penalties
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

    def sample(self, session: Session, place: int) -> int:
        """Sample the token behind one of the last batch, -1 being its last."""
        token: int = self._lib.llama_sampler_sample(self._chain, session.handle, place)
        return token

    def ends(self, token: int) -> bool:
        """Whether the model marks the end of its answer with a token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))


class _PromptCache:
    """Evaluated prompts in a folder, one file for each model; without a folder it does nothing."""

    def __init__(self, folder: Path | None, model: LlamaCppModel, session: Session) -> None:
        self._session = session
        self._file: Path | None = None
        if folder is not None:
            stat = model.file.stat()
            name = f"{model.tokenizer.fingerprint}-{stat.st_size}-{stat.st_mtime_ns}"
            adapter = f"-{model.adapter.stem}-{model.adapter.stat().st_mtime_ns}" if model.adapter else ""
            self._file = folder / f"{name}{adapter}-{session.length}.state"

    def load(self) -> None:
        """Take a cache from the disk when the session has none."""
        if self._file is None or self._session.tokens or not self._file.is_file():
            return
        lib = library()
        tokens = (lib.llama_token * self._session.length)()
        count = ctypes.c_size_t()
        if lib.llama_state_load_file(
            self._session.handle, os.fsencode(self._file), tokens, self._session.length, ctypes.byref(count)
        ):
            self._session.tokens = list(tokens[: count.value])

    def save(self) -> None:
        """Put the session's cache on the disk."""
        if self._file is None:
            return
        lib = library()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".partial")
        ids = self._session.tokens
        tokens = (lib.llama_token * len(ids))(*ids)
        try:
            if not lib.llama_state_save_file(self._session.handle, os.fsencode(aside), tokens, len(ids)):
                raise ModelError(f"llama.cpp cannot write the prompt cache {self._file}: {reason()}")
            os.replace(aside, self._file)
        finally:
            aside.unlink(missing_ok=True)


def _grammar(options: LlamaCppOptions) -> str | None:
    file = options.grammar or options.json_schema
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{file} cannot be read: {error.strerror}") from error
    if options.grammar is not None:
        return text
    read = part("llama_grammar").json_schema_to_gbnf
    try:
        grammar: str = read(text)
    except Exception as error:  # its reader raises whatever a schema it does not expect leads to
        raise RequestError(f"{file} is no JSON schema that llama.cpp can follow: {error}") from error
    return grammar
