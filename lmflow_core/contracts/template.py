"""Conversation templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.examples import Message, Segment, ToolCall
from lmflow_core.contracts.spec import Spec


class Template(Protocol):
    """Target of a ``TemplateSpec``: messages to segments, and to the same text in Jinja."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an assistant's turn."""

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes a rendering."""

    def bind(self, bos: str | None, eos: str | None) -> Template:
        """Return the template with a tokenizer's own tokens filled in."""

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[Segment, ...]:
        """Render a conversation. Trainable is what a trained message's author writes, and the stop behind it.

        ``tools`` are those that the assistant may call, in the form of ``Conversation.tools``.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools.
        """

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools; None when the form of calls is not known.

        ``tools`` are those that were offered; their schemas tell a text from a number where the form does not.
        """

    def to_jinja(self, image: str = "") -> str:
        """Return a Jinja chat template that renders the same text, with ``image`` in the place of each image."""


@dataclass(frozen=True, kw_only=True)
class TemplateSpec(Spec):
    """A conversation template; ``target`` is an object that satisfies ``Template``.

    ``models`` names the models it was made for, for listings.

    Example::

        @hookimpl
        def lmflow_register_templates():
            yield TemplateSpec(
                name="pirate", target="lmflow_pirate.template:PIRATE", summary="Speaks like a captain."
            )
    """

    kind: ClassVar[str] = "template"
    contract: ClassVar[type | None] = Template
    models: str = ""
