"""A transformers tokenizer behind the core's contract: control tokens apart from text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lmflow_core.api import Message, ModelError

# Text put before a continuing text, and cut off again, so that no leading space is made up for it.
_ANCHOR = "\n"


class TransformersTokenizer:
    """Wraps a fast tokenizer. ``inner`` is the tokenizer of transformers.

    Raises:
        ModelError: the tokenizer has no fast backend.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        backend = getattr(inner, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{type(inner).__name__} has no fast backend, which LMFlow needs")
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()

    @cached_property
    def bos(self) -> str | None:
        """The opening token, when the tokenizer puts one before a plain text."""
        token = self.inner.bos_token
        opens = token is not None and self.inner("a").input_ids[:1] == [self.inner.bos_token_id]
        return token if opens else None

    @property
    def eos(self) -> str | None:
        """The end token."""
        token: str | None = self.inner.eos_token
        return token

    @cached_property
    def control_tokens(self) -> Mapping[str, int]:
        """Every token added to the vocabulary, special or not."""
        return dict(self.inner.get_added_vocab())

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the whole fast tokenizer."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Encode plain texts; what looks like a control token becomes its characters."""
        anchored = [_ANCHOR + text if self._leads(flag) else text for text, flag in zip(texts, continues, strict=True)]
        encoded = self._encode_plain(anchored)
        cut = len(self._anchor_ids)
        return [ids[cut:] if self._leads(flag) else ids for ids, flag in zip(encoded, continues, strict=True)]

    def _leads(self, continues: bool) -> bool:
        return continues and bool(self._anchor_ids)

    @cached_property
    def _anchor_ids(self) -> list[int]:
        """Ids of the anchor, when the tokenizer makes up a leading space; else none, as no anchor is needed."""
        first = self._backend.encode("a", add_special_tokens=False).tokens[:1]
        makes_space = bool(first) and first[0].startswith("\u2581")
        return list(self._backend.encode(_ANCHOR, add_special_tokens=False).ids) if makes_space else []

    def _encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        broken = [self._broken_up(text) for text in texts]
        pieces = [piece for parts in broken for piece in parts]
        self._backend.encode_special_tokens = True
        try:
            encoded = iter(self._backend.encode_batch_fast(pieces, add_special_tokens=False))
        finally:
            self._backend.encode_special_tokens = False
        return [[token for _ in parts for token in next(encoded).ids] for parts in broken]

    def _broken_up(self, text: str) -> list[str]:
        """Break a text inside every ordinary added token, which no switch of the backend keeps from matching."""
        if self._ordinary_added is None:
            return [text]
        cuts = [match.start() + 1 for match in self._ordinary_added.finditer(text)]
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    @cached_property
    def _ordinary_added(self) -> re.Pattern[str] | None:
        added = [str(token) for token in self.inner.added_tokens_decoder.values() if not token.special]
        return re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True)))) if added else None

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    def render_chat(self, messages: Sequence[Message], add_generation_prompt: bool) -> str | None:
        """Return the tokenizer's own rendering, or None when it has none or refuses the messages."""
        if not self.inner.chat_template:
            return None
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self.inner.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception:  # a template may refuse a conversation with any error of its own
            return None
        return text
