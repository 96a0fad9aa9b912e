"""Tokenizers without a vocabulary, with which a test can name every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lmflow_core.contracts.examples import ImagePart, Message


class Letters:
    """One token per character, its code; ``|`` ends a sequence and is 0.

    Attributes:
        calls: how often texts were encoded.
    """

    bos: str | None = None
    bos_token: str | None = None
    eos: str | None = "|"
    control_tokens: Mapping[str, int] = {"|": 0}
    swallows_space: Mapping[str, tuple[bool, bool]] = {}
    spaces_after_control = True
    fingerprint = "letters"
    chat_template: str | None = None

    def __init__(self) -> None:
        """Begin with no call."""
        self.calls = 0

    def encode(self, texts: Sequence[str], continues: Sequence[bool]) -> list[list[int]]:
        """Return the codes of the characters."""
        self.calls += 1
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters."""
        return "".join(chr(number) if number else "|" for number in ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] = (),
        jinja: str | None = None,
        *,
        parts: bool = False,
    ) -> str | None:
        """Return None: there is no template."""
        return None


class Pictures:
    """A media tokenizer: an image is as many tokens 1 as its name has letters; ``broken`` cannot be read."""

    fingerprint = "letters"
    around = ("", "")
    placeholder = "<image>"

    def tokenize(self, image: ImagePart) -> tuple[Sequence[int], str]:
        """Return the tokens and a made-up digest.

        Raises:
            ValueError: the image is called ``broken``.
        """
        if image.source == "broken":
            raise ValueError("broken cannot be read as an image")
        return [1] * len(image.source), f"digest of {image.source}"

    def held(self, image: ImagePart) -> ImagePart:
        """Return the image."""
        return image
