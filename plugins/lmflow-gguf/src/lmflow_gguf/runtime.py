"""llama.cpp through its Python binding: weights, vocabulary and a context with its cache."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmflow_core.api import ModelError, RequestError

_BATCH = 512
_STEP = 1024
_NO_FLASH = 0
_ERROR = 4
_errors: deque[str] = deque(maxlen=6)


@functools.cache
def library() -> Any:
    """Return the binding, quiet.

    Raises:
        RequestError: it is not installed.
    """
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        raise RequestError(
            "this needs llama.cpp, whose binding compiles for some minutes: pip install 'lmflow-gguf[llama-cpp]'"
        ) from error
    llama_cpp.llama_log_set(_log_callback(llama_cpp), ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


@functools.cache
def _log_callback(binding: Any) -> Any:
    """Keep what llama.cpp says of errors, for our messages; the rest is not meant for users."""

    @binding.llama_log_callback
    def keep(level: int, text: bytes, _: Any) -> None:
        line = " ".join(text.decode("utf-8", errors="replace").replace("=" * 8, "").split())
        if level == _ERROR and line:
            _errors.append(line)

    return keep


def reason() -> str:
    """Return the last things llama.cpp called an error, and forget them."""
    said = "; ".join(_errors)
    _errors.clear()
    return said or "llama.cpp does not tell why"


def part(name: str) -> Any:
    """Return a module of the binding; raises as :func:`library` does."""
    library()
    return importlib.import_module(f"llama_cpp.{name}")


def processors() -> int:
    """Return the number of processors this process may use; ``OMP_NUM_THREADS`` bounds it, as it bounds torch."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(asked)) if asked.isdecimal() and int(asked) else allowed


@functools.cache
def _has_amx() -> bool:
    """Whether llama.cpp would repack weights for a processor's AMX units: its kernels for some types crash there."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


class Weights:
    """A GGUF file as llama.cpp holds it: with its tensors, or its vocabulary alone.

    ``spaces`` overrides whether a space is put before a text.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """

    def __init__(self, file: Path, *, vocabulary_only: bool = False, spaces: bool | None = None) -> None:
        self.file = file
        lib = self._lib = library()
        parameters = lib.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = not _has_amx()
        if spaces is not None:
            parameters.kv_overrides = self._overrides = _space_override(lib, spaces)
        _errors.clear()
        self.handle = lib.llama_model_load_from_file(os.fsencode(file), parameters)
        if not self.handle:
            raise ModelError(f"llama.cpp cannot load {file}: {reason()}")
        weakref.finalize(self, lib.llama_model_free, self.handle)
        self.vocabulary = lib.llama_model_get_vocab(self.handle)
        self.size: int = lib.llama_vocab_n_tokens(self.vocabulary)
        # A recurrent state cannot be taken back to an earlier token.
        self.forgets = not (lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text in which nothing is a control token."""
        raw = text.encode("utf-8")
        room = len(raw) + 8
        found = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self.vocabulary, raw, len(raw), found, room, False, False)
        return list(found[:count])

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; those of a control token are its name."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = self._lib.llama_token_to_piece(self.vocabulary, token, buffer, room, 0, True)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def text_of(self, token: int) -> str:
        """Return a token as the vocabulary has it."""
        raw: bytes = self._lib.llama_vocab_get_text(self.vocabulary, token)
        return raw.decode("utf-8", errors="replace")


def _space_override(lib: Any, spaces: bool) -> Any:
    overrides = (lib.llama_model_kv_override * 2)()
    overrides[0].key = b"tokenizer.ggml.add_space_prefix"
    overrides[0].tag = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL
    overrides[0].value.val_bool = spaces
    overrides[1].key = b""
    return overrides


class Session:
    """A context of llama.cpp: evaluates tokens one after another and keeps what it made of them.

    ``tokens`` are those in the cache. ``exact`` keeps the cache in float32, for measuring.

    Raises:
        ModelError: there is not enough memory for the context, or the adapter does not fit.
    """

    def __init__(
        self,
        weights: Weights,
        length: int,
        *,
        threads: int | None = None,
        exact: bool = False,
        adapter: Path | None = None,
    ) -> None:
        self.weights = weights
        self.tokens: list[int] = []
        lib = self._lib = library()
        self.length = -(-length // _STEP) * _STEP
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = self.length
        parameters.n_batch = parameters.n_ubatch = _BATCH
        parameters.n_threads = parameters.n_threads_batch = threads or processors()
        parameters.no_perf = True
        if exact:
            parameters.type_k = parameters.type_v = lib.GGML_TYPE_F32
            parameters.flash_attn_type = _NO_FLASH
        self.handle = lib.llama_init_from_model(weights.handle, parameters)
        if not self.handle:
            raise ModelError(f"llama.cpp cannot make room for {self.length} tokens: {reason()}")
        weakref.finalize(self, lib.llama_free, self.handle)
        self._memory = lib.llama_get_memory(self.handle)
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)
        weakref.finalize(self, lib.llama_batch_free, self._batch)
        if adapter is not None:
            self._put_on(adapter)

    def _put_on(self, adapter: Path) -> None:
        self._adapter = self._lib.llama_adapter_lora_init(self.weights.handle, os.fsencode(adapter))
        if not self._adapter:
            raise ModelError(f"the adapter {adapter} does not fit {self.weights.file}: {reason()}")
        handles = (self._lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
        self._lib.llama_set_adapters_lora(self.handle, handles, 1, (ctypes.c_float * 1)(1.0))

    def keep(self, count: int) -> None:
        """Forget all but the first tokens of the cache."""
        # Asked for even when nothing is left over: an evaluation that failed may have left what is not in the list.
        if not self._lib.llama_memory_seq_rm(self._memory, 0, count, -1):
            self._lib.llama_memory_clear(self._memory, True)  # a model that cannot forget a part
            count = 0
        del self.tokens[count:]

    def in_common(self, ids: Sequence[int]) -> int:
        """Return how many tokens of the cache begin some ids, at most all but the last."""
        pairs = enumerate(zip(self.tokens, ids[:-1], strict=False))
        return next((at for at, (cached, wanted) in pairs if cached != wanted), min(len(self.tokens), len(ids[:-1])))

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep of the cache what begins some ids, at most all but the last; return how many tokens that is."""
        self.keep(self.in_common(ids))
        return len(self.tokens)

    def evaluate(self, ids: Sequence[int], *, outputs: bool = False) -> None:
        """Evaluate tokens behind those in the cache; logits are kept for the last one, or for all of one batch."""
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            last = start + len(part) == len(ids)
            self._evaluate(part, outputs, last)

    def _evaluate(self, ids: Sequence[int], outputs: bool, last: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place] = token
            batch.pos[place] = len(self.tokens) + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = outputs
        batch.logits[len(ids) - 1] = outputs or last
        if self._lib.llama_decode(self.handle, batch) != 0:
            raise ModelError(f"llama.cpp failed to evaluate {len(ids)} tokens: {reason()}")
        self.tokens += ids

    def logits(self, rows: int) -> np.ndarray:
        """Return the logits kept by the last batch, ``[rows, vocabulary]``: a view that the next batch overwrites."""
        pointer = self._lib.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.weights.size))

    @property
    def batch_size(self) -> int:
        """The most tokens that are evaluated at a time."""
        return _BATCH
