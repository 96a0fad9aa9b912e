"""Tokens: encoded sequences, and what a tokenizer must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lmflow_core.contracts.examples import Message

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it; both sequences have the same length.

    ``labels[i]`` is ``input_ids[i]`` where that token is learned, else :data:`IGNORE` (no shift is applied).
    """

    input_ids: Sequence[int]
    labels: Sequence[int]


class EncodedDataset(Protocol):
    """Examples that can be fetched by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Encoded: ...


class Tokenizer(Protocol):
    """Text to token ids, with the control tokens apart from the text."""

    @property
    def bos(self) -> str | None:
        """The token that opens a sequence, when the model wants one; else None."""

    @property
    def bos_token(self) -> str | None:
        """The token that a template means by the opening one, whether or not plain texts begin with it."""

    @property
    def eos(self) -> str | None:
        """The token that ends a sequence, or None."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that stand for themselves and are never made from ordinary text."""

    @property
    def swallows_space(self) -> Mapping[str, tuple[bool, bool]]:
        """Control tokens that take the white space beside them: whether that before and that behind."""

    @property
    def spaces_after_control(self) -> bool:
        """Whether a tokenizer that makes up a space before a text does so after a control token too."""

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes the ids of a text."""

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Encode texts as plain text: what looks like a control token becomes its characters.

        Where ``continues`` is set the text follows another without a gap, so no leading space is assumed.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, control tokens included."""

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template, in Jinja; None when it has none."""

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        jinja: str | None = None,
    ) -> str | None:
        """Return a conversation as the model's own chat template renders it in a sandbox, or another one given.

        None when there is no template or it refuses the conversation. Templates that ask for the date are given a
        fixed one, so that a text is the same on every day.
        """
