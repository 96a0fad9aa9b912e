"""llama.cpp through its Python binding: the library, weights and vocabulary."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelError, RequestError, how_to_install

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
            "this needs llama.cpp, whose binding compiles for some minutes: "
            + how_to_install("lmflow-gguf", extra="llama-cpp")
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


def free_memory() -> int | None:
    """Return the bytes that can be taken before the system swaps; None where that is not known."""
    try:
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(facts["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


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
        # How many tokens the layers see that do not see all; 0 where there are none.
        self.window: int = lib.llama_model_n_swa(self.handle)

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
