"""Generation: a prompt, an answer, statistics; and the conversation that ``chat`` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lmflow_core.answers import Answer, all_stops, prompt_ids
from lmflow_core.contracts import Decoder, LanguageModel, Template
from lmflow_core.conversations import Message, ToolCall
from lmflow_core.errors import RequestError
from lmflow_core.job import Component, Request
from lmflow_core.opening import choose_template, open_model
from lmflow_core.options import changed
from lmflow_core.registry import Catalogue
from lmflow_core.settings import DecodingSettings, ModelSettings

# What one answer may want otherwise than the command line says, beside the options of the decoder.
_CHANGEABLE = ("max_new_tokens", "stop", "seed")


@dataclass
class Talker:
    """A loaded model with a decoder and a template, ready to answer. ``template`` is None for raw prompts.

    ``name`` is what the command line calls the model; ``decoding`` is the choice of the decoder, from which another one
    with other options is made.
    """

    name: str
    model: LanguageModel
    decoder: Decoder
    template: Template | None
    settings: DecodingSettings
    decoding: Component
    catalogue: Catalogue
    history: list[Message] = field(default_factory=list)

    def answer(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Answer:
        """Return the answer to a conversation; iterate over it to have it written.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools.
        """
        return self._answer(messages, self.template, tools)

    def read_calls(self, text: str) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools; None when their form is not known."""
        return None if self.template is None else self.template.read_calls(text)

    def complete(self, prompt: str) -> Answer:
        """Return what follows a plain text, without a template."""
        return self._answer([Message("user", prompt)], None)

    def _answer(
        self, messages: Sequence[Message], template: Template | None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Answer:
        tokenizer = self.model.tokenizer
        prompt = prompt_ids(tokenizer, template, messages, tools)
        return Answer(self.decoder, self.model, prompt, self.settings, all_stops(self.settings, template, tokenizer))

    def changed(self, **values: object) -> Talker:
        """Return the same model with other values of the decoder's options or of ``max_new_tokens, stop, seed``.

        Raises:
            OptionError: the decoder has no such option, or the value is out of range.
        """
        own = {name: value for name, value in values.items() if name in _CHANGEABLE}
        options = {name: value for name, value in values.items() if name not in _CHANGEABLE}
        decoding = self.decoding.changed(options)
        return replace(
            self,
            decoder=decoding.make(self.catalogue) if options else self.decoder,
            settings=changed(self.settings, own),
            decoding=decoding,
            history=[],
        )

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with."""
        return [Message("system", self.settings.system)] if self.settings.system is not None else []

    def ask(self, prompt: str) -> Answer:
        """Return the answer to the next turn of the conversation; :meth:`keep` it once it is written.

        Raises:
            RequestError: the template has no place for the system prompt.
        """
        self.history = self.history or self.opening()
        self.history.append(Message("user", prompt))
        try:
            return self.answer(self.history)
        except ValueError as error:
            raise RequestError(str(error)) from error

    def keep(self, answer: Answer) -> None:
        """Put a written answer into the conversation."""
        self.history.append(Message("assistant", answer.text))

    def reset(self) -> None:
        """Forget the conversation."""
        self.history = []


def open_talker(request: Request, catalogue: Catalogue, *, raw: bool = False) -> Talker:
    """Open what a request names, weights included.

    Raises:
        LmflowError: the model, template or decoder cannot be used.
    """
    settings = request.get(DecodingSettings)
    asked = request.get(ModelSettings)
    decoding = request.components["decoder"]
    opened = open_model(asked, catalogue, decoding.provided.spec.runtime, f"decoder {decoding.name!r}")
    template = None if raw else choose_template(settings.template, opened, catalogue)[1]
    decoder: Decoder = decoding.make(catalogue)
    return Talker(asked.model, opened.load(), decoder, template, settings, decoding, catalogue)
