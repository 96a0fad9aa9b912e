"""Tokens: encoded examples, and what turns text and media into ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lmflow_core.contracts.examples import ImagePart, Message, Prompt

IGNORE = -100


@dataclass(frozen=True)
class Media:
    """A picture in a sequence, by reference: its pixels are made when a batch is collated, and never stored.

    Attributes:
        source: the path or address it is read from.
        digest: of its bytes, so that another picture under the same path is noticed.
        start: where the tokens that stand for it begin in the sequence.
        tokens: how many these are.
    """

    source: str
    digest: str
    start: int
    tokens: int


@dataclass(frozen=True)
class EncodedSequence:
    """One sequence as the model sees it; ids and labels have the same length.

    ``labels[i]`` is ``input_ids[i]`` where that token is learned, else :data:`IGNORE` (no shift is applied). Tokens
    that stand for media are never learned.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    media: tuple[Media, ...] = ()


@dataclass(frozen=True)
class EncodedExample:
    """One example: a group of sequences that is never split, with named numbers.

    ===============  ======================================  ==============================================
    example          sequences                               numbers
    ===============  ======================================  ==============================================
    text, answer     one                                     none
    prompt           one, without labels                     none
    preference       two: the chosen, the rejected           ``margin``, where the data has one
    judged           one                                     ``desirable``: 1 or 0
    candidates       one for each answer                     ``scores``: one for each; NaN without any
    ===============  ======================================  ==============================================

    ``prompt`` is what a prompt was encoded from, with the fields of its row, so that answers to it can be scored.
    """

    sequences: tuple[EncodedSequence, ...]
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    prompt: Prompt | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences."""
        return sum(len(sequence.input_ids) for sequence in self.sequences)


class EncodedDataset(Protocol):
    """Examples that can be fetched by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> EncodedExample: ...

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, all its sequences together."""


class MediaTokenizer(Protocol):
    """Images to the tokens that stand for them, for models that see."""

    @property
    def fingerprint(self) -> str:
        """A digest of everything that changes the ids that stand for an image."""

    @property
    def around(self) -> tuple[str, str]:
        """The texts before and behind the ids of every image, which are encoded with the texts beside them."""

    def tokenize(self, image: ImagePart) -> tuple[Sequence[int], str]:
        """Return the ids that stand for an image, and a digest of its bytes.

        Raises:
            ValueError: the image cannot be read; the message tells why.
        """

    def held(self, image: ImagePart) -> ImagePart:
        """Return an image that is at a server as one whose address holds its bytes; any other as it is.

        Raises:
            ValueError: it cannot be fetched, or may not be.
        """

    @property
    def placeholder(self) -> str:
        """What the model's own chat template writes where the ids of an image belong, such as ``<image>``.

        Marks beside it whose ids are part of these, such as ``<|vision_start|>``, are part of the text, too. What else
        the template writes there stays.
        """


class Tokenizer(Protocol):
    """Text to token ids, with the control tokens separate from the text."""

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

        Raises:
            ControlTextError: a single character becomes a control token.
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
        *,
        parts: bool = False,
    ) -> str | None:
        """Return a conversation as the model's own chat template renders it in a sandbox, or another one given.

        With ``parts`` every content is given as a list of parts, as templates of models that see may ask for.
        None when there is no template or it refuses the conversation. Templates that ask for the date are given a
        fixed one, so that a text is the same on every day.

        Raises:
            TemplateLimitError: the template takes too long or too much memory, or writes too much.
        """
