"""Contexts of llama.cpp: what evaluates tokens and keeps what it made of them."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmflow_core.api import ModelError
from lmflow_gguf.runtime import Weights, library, processors, reason

# The most tokens that are evaluated at a time.
BATCH = 512
_STEP = 1024
_NO_FLASH = 0


@dataclass(frozen=True)
class Part:
    """Tokens that are evaluated together with others.

    Attributes:
        text: number of the text they go on.
        start: how many of its tokens were evaluated before.
        ids: the tokens, at least one.
        outputs: behind how many of them, counted from the last, logits are kept.
    """

    text: int
    start: int
    ids: Sequence[int]
    outputs: int


class Context:
    """A context of llama.cpp, with room for the tokens of some texts.

    Texts that begin alike can share the memory of their beginning: see :meth:`copy`.

    Args:
        weights: of the model.
        length: for how many tokens, of all texts together, there is room.
        texts: most texts, numbered from 0.
        threads: on the processor; every one when left out.
        exact: keep keys and values in float32, for measuring.
        adapter: file of a LoRA adapter that is put on the model.

    Raises:
        ModelError: there is not enough memory for the context, or the adapter does not fit.
    """

    def __init__(
        self,
        weights: Weights,
        length: int,
        *,
        texts: int = 1,
        threads: int | None = None,
        exact: bool = False,
        adapter: Path | None = None,
    ) -> None:
        self.weights = weights
        lib = self._lib = library()
        self.length = -(-length // _STEP) * _STEP
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = self.length
        parameters.n_seq_max = texts
        parameters.kv_unified = True
        parameters.n_batch = parameters.n_ubatch = BATCH
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
        self._batch = lib.llama_batch_init(BATCH, 0, 1)
        weakref.finalize(self, lib.llama_batch_free, self._batch)
        if adapter is not None:
            self._put_on(adapter)

    def _put_on(self, adapter: Path) -> None:
        self._adapter = self._lib.llama_adapter_lora_init(self.weights.handle, os.fsencode(adapter))
        if not self._adapter:
            raise ModelError(f"the adapter {adapter} does not fit {self.weights.file}: {reason()}")
        handles = (self._lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
        self._lib.llama_set_adapters_lora(self.handle, handles, 1, (ctypes.c_float * 1)(1.0))

    def read(self, parts: Sequence[Part]) -> None:
        """Evaluate the parts, of at most :data:`BATCH` tokens, in one pass.

        Raises:
            ModelError: llama.cpp failed; what it had of the parts is forgotten.
        """
        batch, at = self._batch, 0
        for part in parts:
            silent = len(part.ids) - part.outputs
            for place, token in enumerate(part.ids):
                batch.token[at] = token
                batch.pos[at] = part.start + place
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = part.text
                batch.logits[at] = place >= silent
                at += 1
        batch.n_tokens = at
        if self._lib.llama_decode(self.handle, batch) != 0:
            said = reason()
            for part in parts:
                self.forget(part.text, part.start)
            raise ModelError(f"llama.cpp failed to evaluate {at} tokens: {said}")

    def logits(self, rows: int) -> np.ndarray:
        """Return the logits kept by the last pass, ``[rows, vocabulary]``: a view that the next pass overwrites."""
        pointer = self._lib.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(pointer, shape=(rows, self.weights.size))

    def forget(self, text: int, start: int = 0) -> bool:
        """Forget the tokens of a text from one on; False where the model can only forget a whole text."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, text, start, -1))

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a text that is empty begin with the first ``length`` tokens of another, in the same memory."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def holds(self, text: int, length: int) -> bool:
        """Whether a text can go on behind its first ``length`` tokens: layers with a window may have dropped some."""
        window = self.weights.window
        first: int = self._lib.llama_memory_seq_pos_min(self._memory, text) if window and length else 0
        return 0 <= first <= max(0, length - window + 1)

    def clear(self) -> None:
        """Forget every text."""
        self._lib.llama_memory_clear(self._memory, True)

    def state_size(self, text: int) -> int:
        """Return how many bytes are kept of a text."""
        return int(self._lib.llama_state_seq_get_size(self.handle, text))

    def move_to(self, other: Context, text: int) -> None:
        """Give another context what is kept of a text.

        Raises:
            ModelError: it has no room for that.
        """
        size = self.state_size(text)
        state = (ctypes.c_uint8 * size)()
        size = self._lib.llama_state_seq_get_data(self.handle, state, size, text)
        if not self._lib.llama_state_seq_set_data(other.handle, state, size, text):
            raise ModelError(f"llama.cpp cannot move a text of {size} bytes: {reason()}")


class Session(Context):
    """A context of one text.

    Attributes:
        tokens: those in the cache.
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
        super().__init__(weights, length, threads=threads, exact=exact, adapter=adapter)
        self.tokens: list[int] = []

    def keep(self, count: int) -> None:
        """Forget all but the first tokens of the cache."""
        # Asked for even when nothing is left over: an evaluation that failed may have left what is not in the list.
        if not self.forget(0, count):
            self.clear()  # a model that cannot forget a part
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
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            last = start + len(part) == len(ids)
            self.read([Part(0, len(self.tokens), part, len(part) if outputs else int(last))])
            self.tokens += part
