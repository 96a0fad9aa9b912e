"""A transformers tokenizer behind the core's contract: control tokens separate from text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from lmflow_core.api import Message, ModelError, PlainTextEncoder, as_turns, printable, render_jinja


class TransformersTokenizer:
    """Wraps a fast tokenizer. ``inner`` is the tokenizer of transformers.

    Raises:
        ModelError: the tokenizer has no fast backend, or a length that is none.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        backend = getattr(inner, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"{type(inner).__name__} has no fast backend, which LMFlow needs")
        if not isinstance(inner.model_max_length, int | float):
            raise ModelError(f"{inner.name_or_path}: model_max_length of tokenizer_config.json must be a number")
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
    def bos_token(self) -> str | None:
        """The token named as the opening one."""
        token: str | None = self.inner.bos_token
        return token

    @property
    def eos(self) -> str | None:
        """The end token."""
        token: str | None = self.inner.eos_token
        return token

    @cached_property
    def control_tokens(self) -> Mapping[str, int]:
        """Every special token, and every other token added to the vocabulary that is a mark.

        White space and single characters that were added are text: indentation is, in many vocabularies.
        """
        ordinary = {str(token) for token in self.inner.added_tokens_decoder.values() if not token.special}
        added: dict[str, int] = self.inner.get_added_vocab()
        return {text: number for text, number in added.items() if text not in ordinary or _is_mark(text)}

    @cached_property
    def swallows_space(self) -> Mapping[str, tuple[bool, bool]]:
        """Control tokens that take the white space before or behind them."""
        added = {str(token): (token.lstrip, token.rstrip) for token in self.inner.added_tokens_decoder.values()}
        return {text: sides for text, sides in added.items() if any(sides) and text in self.control_tokens}

    @cached_property
    def spaces_after_control(self) -> bool:
        """Whether a leading space is made up after a control token, as it is at the start of a text."""
        token = next(iter(self.control_tokens), "")
        alone = self._backend.encode("a", add_special_tokens=False).ids
        followed: list[int] = self._backend.encode(token + "a", add_special_tokens=False).ids
        return followed[-len(alone) :] == alone

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the whole fast tokenizer, and of the tokens around a text, which it does not know."""
        told = (self._backend.to_str(), repr(self.bos), repr(self.bos_token), repr(self.eos))
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Encode plain texts; what looks like a control token becomes its characters."""
        return self._encoder.encode(texts, continues)

    @cached_property
    def _encoder(self) -> PlainTextEncoder:
        # Copies of the backend: were its switch turned on and off around each call, a text of another thread could slip
        # between. The second, for text that follows other text, makes up no leading space.
        kind, written, name = type(self._backend), self._backend.to_str(), self.inner.name_or_path
        plain, steps = _switched_off(kind, written, name), json.loads(written)
        changed = steps | {name: _without_space(steps[name]) for name in ("normalizer", "pre_tokenizer")}
        unspaced = plain if changed == steps else _switched_off(kind, json.dumps(changed), name)
        ends = {self.inner.bos_token_id, self.inner.eos_token_id}
        return PlainTextEncoder(partial(_encode_plain, plain, unspaced), self.control_tokens, _unknown(steps, ends))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=False)
        return text

    @property
    def chat_template(self) -> str | None:
        """The tokenizer's own chat template; of several, the default one."""
        own: str | Mapping[str, str] | None = self.inner.chat_template
        return own.get("default") if isinstance(own, Mapping) else own

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        jinja: str | None = None,
        *,
        parts: bool = False,
    ) -> str | None:
        """Return the tokenizer's own rendering, or that of a given template, or None when it refuses the messages.

        Raises:
            TemplateLimitError: the template takes too long or too much memory, or writes too much.
        """
        template = jinja or self.chat_template
        if not template:
            return None
        values = {
            **self.inner.special_tokens_map,
            "messages": as_turns(messages, parts=parts),
            "tools": [*tools] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        own = template == self.chat_template
        name = f"the chat template of {self.inner.name_or_path}" if own else "the chat template given"
        return render_jinja(template, values, name)


def _unknown(steps: Mapping[str, Any], ends: Collection[int | None]) -> int | None:
    """Return the id of what a vocabulary does not hold; None where that token also opens or ends texts."""
    model = steps["model"]
    number: int | None = model.get("unk_id", model["vocab"].get(model["unk_token"]) if model.get("unk_token") else None)
    return None if number in ends else number


def _is_mark(text: str) -> bool:
    return len(text.replace("\u2581", " ").strip()) > 1


def _switched_off(kind: Any, steps: str, name: str) -> Any:
    """Return a backend, from how it is written in JSON, that makes no special token of a text."""
    try:
        backend = kind.from_str(steps)
    except Exception as error:  # the library raises no narrower kind
        raise ModelError(f"{name}: the tokenizer cannot be used: {printable(str(error), 300)}") from error
    backend.encode_special_tokens = True  # that is, as the characters they are
    return backend


def _encode_plain(plain: Any, unspaced: Any, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
    """Encode in two calls, one for texts that may begin with a space made up and one for those that go on."""
    encoded: list[list[int]] = [[] for _ in texts]
    for backend, wanted in ((plain, False), (unspaced, True)):
        places = [place for place, flag in enumerate(continues) if flag == wanted]
        found = backend.encode_batch_fast([texts[place] for place in places], add_special_tokens=False)
        for place, encoding in zip(places, found, strict=True):
            encoded[place] = encoding.ids
    return encoded


def _without_space(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a normalizer or pre-tokenizer, as written in JSON, that puts no space before a text."""
    if step is None or step["type"] == "Prepend":
        return None
    for name in ("normalizers", "pretokenizers"):
        if name in step:
            return step | {name: [kept for part in step[name] if (kept := _without_space(part)) is not None]}
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    return step | {name: value for name, value in changes.items() if name in step}
