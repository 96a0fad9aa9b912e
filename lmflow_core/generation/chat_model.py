"""Generation: a loaded model that answers conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmflow_core.config.request import Component, Request, chosen, option_classes, resolve
from lmflow_core.contracts.decoder import Decoder
from lmflow_core.contracts.examples import Message, ToolCall
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DecodingSettings, ModelSettings
from lmflow_core.contracts.template import Template
from lmflow_core.generation.answers import Answer, all_stops, prompt_ids
from lmflow_core.models.opening import open_model
from lmflow_core.options import OptionField, changed, fields_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.choosing import choose_template

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

    @property
    def context_length(self) -> int | None:
        """How many tokens prompt and answer may have together; None where there is no limit."""
        return None if self.decoding.provided.spec.unbounded else self.model.context_length

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
        )

    def parameters(self) -> list[tuple[OptionField, object]]:
        """Return what :meth:`changed` can change, with its values."""
        own = [field for field in fields_of(DecodingSettings) if field.name in _CHANGEABLE]
        told = [(field, getattr(self.settings, field.name)) for field in own]
        options = self.decoding.options
        drawn = fields_of(type(options)) if options is not None else []
        return [*told, *((field, getattr(options, field.name)) for field in drawn)]

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with."""
        return opening(self.settings)


def opening(settings: DecodingSettings) -> list[Message]:
    """Return the messages a conversation starts with: the system prompt, if any."""
    return [Message("system", settings.system)] if settings.system is not None else []


def open_talker(request: Request, catalogue: Catalogue, *, raw: bool = False) -> Talker:
    """Open what a request names, weights included.

    Raises:
        LmflowError: the model, template or decoder cannot be used.
    """
    settings = request.get(DecodingSettings)
    asked = request.get(ModelSettings)
    decoding = request.components["decoder"]
    opened = open_model(
        asked,
        catalogue,
        scaling=request.components.get("position_scaling"),
        attention=request.components.get("attention"),
        runtime=decoding.provided.spec.runtime,
        needed_by=f"decoder {decoding.name!r}",
    )
    template = None if raw else choose_template(settings.template, opened, catalogue)[1]
    decoder: Decoder = decoding.make(catalogue)
    return Talker(asked.model, opened.load(), decoder, template, settings, decoding, catalogue)


class TalkerOpener:
    """Opens models as a request names them, or with other values for some options. Satisfies ``ModelOpener``."""

    def __init__(self, request: Request, catalogue: Catalogue) -> None:
        self._request = request
        self._catalogue = catalogue
        self._last: tuple[object, Talker] | None = None

    def __call__(self, **changes: object) -> Talker:
        """Load what the request names with some changes; weights only where another model is named."""
        request = self._changed(changes) if changes else self._request
        settings = request.get(DecodingSettings)
        wanted = (request.get(ModelSettings), settings.template, request.components.get("attention"))
        if self._last is not None and self._last[0] == wanted:
            decoding = request.components["decoder"]
            decoder: Decoder = decoding.make(self._catalogue)
            talker = replace(self._last[1], decoder=decoder, settings=settings, decoding=decoding)
        else:
            self._last = None  # gives its memory back before the next model takes more
            talker = open_talker(request, self._catalogue)
        self._last = wanted, talker
        return talker

    def _changed(self, changes: Mapping[str, object]) -> Request:
        """Return the request with some changes; the options of a decoder that is left go with it."""
        values = {**self._request.values(), **changes}
        shape = self._request.schema
        classes = option_classes(shape, chosen(shape, values, self._catalogue))
        kept = {field.name for options in classes for field in fields_of(options)} | changes.keys()
        return resolve(shape, {name: value for name, value in values.items() if name in kept}, self._catalogue)

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind."""
        return self._catalogue.of_kind(kind).names()
