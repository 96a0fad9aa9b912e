"""A conversation template made from a description: one for training, chatting and everybody else."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lmflow_core.contracts.examples import Message, Segment, ToolCall
from lmflow_core.templates.calls import read_calls
from lmflow_core.templates.description import Description
from lmflow_core.templates.jinja import compiled
from lmflow_core.templates.rendering import rendered

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ChatTemplate(Description):
    """A template as data: it renders segments, and compiles to Jinja that renders the same text."""

    def bind(self, bos: str | None, eos: str | None) -> ChatTemplate:
        """Return the template with the tokenizer's own tokens in place of ``{bos}`` and ``{eos}``."""
        return _bound(self, bos or "", eos or "")

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes a rendering."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation as segments.

        Raises:
            ValueError: the roles are out of order, or there is no place for a system message, a call or tools.
        """
        return rendered(self, messages, add_generation_prompt, tools)

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools; None where the template has no place for any.

        ``tools`` are those offered, which tell a text from a number where the form of calls does not.
        """
        return None if self.tools is None else read_calls(self.tools, text, tools)

    def to_jinja(self, image: str = "") -> str:
        """Return a Jinja chat template that renders the same text for every conversation :meth:`render` takes.

        An image of a user's is written as ``image``.
        """
        return compiled(self, image)


def _bound(texts: T, bos: str, eos: str) -> T:
    """Fill the tokens into every text of a description but its system prompts, which are content."""

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{bos}", bos).replace("{eos}", eos)
        if isinstance(value, tuple):
            return tuple(text for text in map(filled, value) if text)
        return _bound(value, bos, eos) if dataclasses.is_dataclass(value) else value

    return dataclasses.replace(texts, **dict(_fields(texts, filled)))  # type: ignore[type-var]


def _fields(texts: Any, filled: Any) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(texts):
        if field.name != "default_system":
            yield field.name, filled(getattr(texts, field.name))
