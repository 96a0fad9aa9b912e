"""Decoding by llama.cpp: its samplers, grammars, prompt cache, and drafts looked up in the text so far."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lmflow_core.api import BatchLimits, DecodeStep, DecodingRequest, ModelError, ModelServices
from lmflow_gguf.asked import check_prompt
from lmflow_gguf.batch import LlamaBatch
from lmflow_gguf.contexts import BATCH, Session
from lmflow_gguf.grammars import answer_grammar
from lmflow_gguf.model import LlamaCppModel
from lmflow_gguf.options import LlamaCppOptions
from lmflow_gguf.runtime import library, part, reason
from lmflow_gguf.sampling import Sampler
from lmflow_gguf.shared import can_share

_LONGEST_NGRAM = 3


class LlamaCppDecoder:
    """Samples tokens with llama.cpp.

    Raises:
        RequestError: there is no grammar or schema that llama.cpp can follow in what the options name.
    """

    def __init__(self, options: LlamaCppOptions | None = None) -> None:
        self._options = options or LlamaCppOptions()
        self._grammar = answer_grammar(self._options)

    def prepare(self, model: LlamaCppModel, services: ModelServices) -> None:
        """Check that answers of the model can be sampled by the options.

        Raises:
            RequestError: llama.cpp refuses the grammar, or a bias is for no token of the model.
        """
        self.sampler(model, DecodingRequest((), 1))

    def decode(self, model: LlamaCppModel, request: DecodingRequest) -> Iterator[DecodeStep]:
        """Yield new tokens; several at a time where a draft held.

        Raises:
            RequestError: the prompt is empty, or as :meth:`prepare` does.
            ModelError: the prompt and the answer do not fit into memory.
        """
        check_prompt(request)
        options = self._options
        room = len(request.prompt) + request.max_new_tokens
        session = model.session(room, options.threads, request.prompt)
        try:
            yield from self._decoded(model, session, request)
        finally:
            model.give_back(session)

    def _decoded(self, model: LlamaCppModel, session: Session, request: DecodingRequest) -> Iterator[DecodeStep]:
        prompt, most = request.prompt, request.max_new_tokens
        sampler = self.sampler(model, request)
        cache = _PromptCache(self._options.prompt_cache, model, session)
        cache.load()
        cached = session.reuse(prompt)
        session.evaluate(prompt[cached:])
        cache.save()
        draft: Sequence[int] = ()
        written: list[int] = []
        while True:
            sampled = sampler.accepted(session, 0 if draft else -1, draft)
            ids, ended = sampler.until_end(sampled[: most - len(written)], request.stop_ids)
            written += ids
            if ids:
                yield DecodeStep(tuple(ids), drafted=len(draft), accepted=len(ids) - 1)
            if ended or len(written) == most:
                return
            draft = self.draft([*prompt, *written], most - len(written) - 1) if model.weights.forgets else ()
            # Of the cache only what was accepted stays; the last token is not evaluated yet.
            session.keep(len(prompt) + len(written) - 1)
            session.evaluate([written[-1], *draft], outputs=bool(draft))

    def sampler(self, model: LlamaCppModel, request: DecodingRequest) -> Sampler:
        """Return what samples the tokens of an answer.

        Raises:
            RequestError: as :meth:`prepare` does.
        """
        return Sampler(model.weights, self._options, self._grammar, request.seed, request.prompt)

    def draft(self, ids: Sequence[int], most: int, beside: int = 1) -> Sequence[int]:
        """Return tokens that may follow a text, for the next pass to check: what followed its last ones before.

        Args:
            ids: the text.
            most: how many tokens may be returned.
            beside: how many answers draft for the same pass; what is drafted is divided among them.
        """
        length = min(self._options.prompt_lookup, BATCH // 2) // beside
        if min(length, most) < 1:
            return ()
        look_up = part("llama_speculative").LlamaPromptLookupDecoding(_LONGEST_NGRAM, min(length, most))
        return [int(token) for token in look_up(np.array(ids, dtype=np.intc))]

    def open_batch(self, model: LlamaCppModel, limits: BatchLimits) -> LlamaBatch | None:
        """Return a batch of a loaded model; None where its texts cannot share a context, or prompts are kept on disk.

        Raises:
            ModelError: there is not enough memory for a context.
        """
        if self._options.prompt_cache is not None or not can_share(model):
            return None
        return LlamaBatch(model, limits, threads=self._options.threads)


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
