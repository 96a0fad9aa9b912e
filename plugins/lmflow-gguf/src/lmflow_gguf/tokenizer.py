"""llama.cpp's tokenizer behind the core's contract: control tokens separate from text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lmflow_core.api import Message, ModelError, PlainTextEncoder, as_turns, render_jinja
from lmflow_gguf.header import read_header
from lmflow_gguf.runtime import Weights, library

# llama.cpp's attributes of tokens.
_CONTROL, _USER_DEFINED, _BEFORE, _BEHIND = 8, 16, 128, 256


class GgufTokenizer:
    """The tokenizer of a GGUF file.

    Raises:
        ModelError: the file is damaged or has no tokenizer.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.header = read_header(file)
        if "tokenizer.ggml.tokens" not in self.header.keys:
            raise ModelError(f"{file} has no tokenizer (no tokenizer.ggml.tokens), so no text can be given to it")
        self._spaced = Weights(file, vocabulary_only=True)
        self._lib = library()

    @property
    def bos(self) -> str | None:
        """The opening token, when the file says that one is put before a text."""
        return self.bos_token if self._lib.llama_vocab_get_add_bos(self._spaced.vocabulary) else None

    @property
    def bos_token(self) -> str | None:
        """The token named as the opening one."""
        return self._named(self._lib.llama_vocab_bos(self._spaced.vocabulary))

    @property
    def eos(self) -> str | None:
        """The end token."""
        return self._named(self._lib.llama_vocab_eos(self._spaced.vocabulary))

    def _named(self, token: int) -> str | None:
        return self._spaced.text_of(token) if token >= 0 else None

    @cached_property
    def control_tokens(self) -> Mapping[str, int]:
        """Every control token, and every other token added to the vocabulary that is a mark."""
        found = {}
        for token in range(self._spaced.size):
            attributes = self._lib.llama_vocab_get_attr(self._spaced.vocabulary, token)
            if attributes & (_CONTROL | _USER_DEFINED):
                text = self._spaced.text_of(token)
                if attributes & _CONTROL or len(text.replace("\u2581", " ").strip()) > 1:
                    found[text] = token
        return found

    @cached_property
    def swallows_space(self) -> Mapping[str, tuple[bool, bool]]:
        """Control tokens that take the white space before or behind them, as llama.cpp knows of some models."""
        found = {}
        for text, token in self.control_tokens.items():
            attributes = self._lib.llama_vocab_get_attr(self._spaced.vocabulary, token)
            if attributes & (_BEFORE | _BEHIND):
                found[text] = (bool(attributes & _BEFORE), bool(attributes & _BEHIND))
        return found

    @property
    def spaces_after_control(self) -> bool:
        """Whether a leading space is made up after a control token: llama.cpp does so wherever it does at all."""
        return self._makes_up_spaces

    @cached_property
    def _makes_up_spaces(self) -> bool:
        return self._spaced.tokenize("a") != self._unspaced.tokenize("a")

    @cached_property
    def _unspaced(self) -> Weights:
        """The vocabulary for text that follows other text; another one only where it makes a difference."""
        if self.header.keys.get("tokenizer.ggml.model") == "gpt2":
            return self._spaced
        return Weights(self.file, vocabulary_only=True, spaces=False)

    @property
    def fingerprint(self) -> str:
        """A digest of the file's keys, which hold the whole tokenizer."""
        return self.header.digest

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Encode plain texts; what looks like a control token becomes its characters."""
        return self._encoder.encode(texts, continues)

    @cached_property
    def _encoder(self) -> PlainTextEncoder:
        unknown = self.header.keys.get("tokenizer.ggml.unknown_token_id")
        ends = (self.bos_token, self.eos)
        may_be = isinstance(unknown, int) and self._named(unknown) not in ends
        return PlainTextEncoder(self._encode_pieces, self.control_tokens, unknown if may_be else None)

    def _encode_pieces(self, pieces: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        return [
            (self._unspaced if follows else self._spaced).tokenize(piece)
            for piece, follows in zip(pieces, continues, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""
        return b"".join(map(self._spaced.piece, ids)).decode("utf-8", errors="replace")

    @property
    def chat_template(self) -> str | None:
        """The file's own chat template."""
        template = self.header.keys.get("tokenizer.chat_template")
        return template if isinstance(template, str) and template else None

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        jinja: str | None = None,
        *,
        parts: bool = False,
    ) -> str | None:
        """Return the file's own rendering, or that of a given template, or None when it refuses the messages.

        Raises:
            TemplateLimitError: the template takes too long or too much memory, or writes too much.
        """
        template = jinja or self.chat_template
        if template is None:
            return None
        values = {
            "bos_token": self.bos_token or "",
            "eos_token": self.eos or "",
            "messages": as_turns(messages, parts=parts),
            "tools": [*tools] or None,
            "add_generation_prompt": add_generation_prompt,
        }
        name = f"the chat template of {self.file}" if template == self.chat_template else "the chat template given"
        return render_jinja(template, values, name)
