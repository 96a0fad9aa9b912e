"""Generation: a loaded model that answers conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmflow_core.config.request import Component, Request, everything_chosen, option_classes, resolve
from lmflow_core.contracts.decoder import BatchLimits, Decoder, DecodingRequest
from lmflow_core.contracts.examples import Message, ToolCall
from lmflow_core.contracts.model import LanguageModel, ModelServices
from lmflow_core.contracts.settings import DecodingSettings, ModelSettings
from lmflow_core.contracts.template import Template
from lmflow_core.data.encoding import Encoder
from lmflow_core.errors import RequestError
from lmflow_core.generation.answers import Answer, all_stops, encoded_prompt, stop_tokens
from lmflow_core.generation.context import answer_limit, context_limit
from lmflow_core.generation.many import GrowingBatch
from lmflow_core.generation.second_models import Models
from lmflow_core.models.opening import open_model
from lmflow_core.models.tasks import check_predicts
from lmflow_core.options import OptionField, changed, fields_of
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.choosing import choose_template

# What one answer may want otherwise than the command line says, beside the options of the decoder.
_CHANGEABLE = ("max_new_tokens", "stop", "seed")


@dataclass
class LoadedChatModel:
    """A loaded model with a decoder and a template, ready to answer. Satisfies ``ChatModel``.

    Attributes:
        name: what the command line calls the model.
        model: loaded.
        decoder: prepared for the model.
        template: None for raw prompts.
        settings: of the command line, or changed ones.
        decoding: the choice of the decoder, from which another one with other options is made.
        catalogue: the components there are.
        services: what a decoder may ask for while it is prepared.
    """

    name: str
    model: LanguageModel
    decoder: Decoder
    template: Template | None
    settings: DecodingSettings
    decoding: Component
    catalogue: Catalogue
    services: ModelServices

    @property
    def decoder_name(self) -> str:
        """What the command line calls the decoder."""
        return self.decoding.name

    @property
    def context_length(self) -> int | None:
        """How many tokens prompt and answer may have together; None where there is no limit."""
        return context_limit(self.model, self.decoding.provided.spec)

    def answer(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Answer:
        """Return the answer to a conversation; iterate over it to have it written.

        Raises:
            ValueError: the template has no place for one of the messages, or for tools, or an image cannot be read or
                taken.
            RequestError: the decoder takes no images.
            PromptTooLongError: the prompt leaves no room in the context for a token.
        """
        return self._answer(messages, self.template, tools)

    def read_calls(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, tuple[ToolCall, ...]] | None:
        """Split an answer into its content and its calls of tools; None when their form is not known."""
        return None if self.template is None else self.template.read_calls(text, tools)

    def complete(self, prompt: str) -> Answer:
        """Return what follows a plain text, without a template.

        Raises:
            PromptTooLongError: the text leaves no room in the context for a token.
        """
        return self._answer([Message("user", prompt)], None)

    def _answer(
        self, messages: Sequence[Message], template: Template | None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Answer:
        tokenizer, settings = self.model.tokenizer, self.settings
        prompt = encoded_prompt(Encoder(tokenizer, template, media=self.model.media), messages, tools)
        if prompt.media and not self.decoding.provided.spec.images:
            raise RequestError(f"decoder {self.decoder_name!r} takes no images: use --decoder sampling")
        ids = list(prompt.input_ids)
        most = answer_limit(self.context_length, len(ids), settings.max_new_tokens)
        stops = all_stops(settings, template, tokenizer)
        request = DecodingRequest(ids, most, stop_tokens(stops, tokenizer), settings.seed, prompt.media)
        return Answer(self.decoder, self.model, request, stops)

    @property
    def batches(self) -> bool:
        """Whether answers of one batch are sampled together."""
        return bool(self.decoding.provided.spec.batches)

    def open_batch(self, limits: BatchLimits) -> GrowingBatch:
        """Return a batch for answers of this model, and of those that :meth:`changed` makes of it."""
        return GrowingBatch(self.model, self.decoder, self.decoding.provided.spec, limits)

    def changed(self, **values: object) -> LoadedChatModel:
        """Return the same model with other values of the decoder's options or of ``max_new_tokens, stop, seed``.

        Raises:
            OptionError: the decoder has no such option, or the value is out of range.
            LmflowError: with these options, the decoder cannot drive the model.
        """
        own = {name: value for name, value in values.items() if name in _CHANGEABLE}
        options = {name: value for name, value in values.items() if name not in _CHANGEABLE}
        same = replace(self, settings=changed(self.settings, own))
        return same.decoding_by(self.decoding.changed(options)) if options else same

    def decoding_by(self, decoding: Component) -> LoadedChatModel:
        """Return the same model with another decoder, or the same one with other options.

        Raises:
            LmflowError: the decoder cannot be made, or cannot drive the model.
        """
        decoder: Decoder = decoding.make(self.catalogue)
        decoder.prepare(self.model, self.services)
        return replace(self, decoder=decoder, decoding=decoding)

    def parameters(self) -> list[tuple[OptionField, object]]:
        """Return what :meth:`changed` can change, with its values."""
        own = [field for field in fields_of(DecodingSettings) if field.name in _CHANGEABLE]
        told = [(field, getattr(self.settings, field.name)) for field in own]
        options = self.decoding.options
        fields = fields_of(type(options)) if options is not None else []
        return [*told, *((field, getattr(options, field.name)) for field in fields)]

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with."""
        return opening(self.settings)


def opening(settings: DecodingSettings) -> list[Message]:
    """Return the messages a conversation starts with: the system prompt, if any."""
    return [Message("system", settings.system)] if settings.system is not None else []


def open_chat_model(request: Request, catalogue: Catalogue, *, raw: bool = False) -> LoadedChatModel:
    """Open what a request names, weights included.

    Raises:
        LmflowError: the model, template or decoder cannot be used.
    """
    settings = request.get(DecodingSettings)
    asked = request.get(ModelSettings)
    decoding = request.components["decoder"]
    runtime = decoding.provided.spec.runtime
    opened = open_model(
        asked,
        catalogue,
        scaling=request.components.get("position_scaling"),
        attention=request.components.get("attention"),
        runtime=runtime,
        needed_by=f"decoder {decoding.name!r}",
    )
    check_predicts(opened.model, f"decoder {decoding.name!r}")
    template = None if raw else choose_template(settings.template, opened, catalogue)[1]
    # Made before the weights are loaded, as that takes long and a decoder may refuse its options.
    decoder: Decoder = decoding.make(catalogue)
    services = Models(catalogue, runtime)
    model = opened.load()
    decoder.prepare(model, services)
    return LoadedChatModel(asked.model, model, decoder, template, settings, decoding, catalogue, services)


class ChatModelOpener:
    """Opens models as a request names them, or with other values for some options. Satisfies ``ModelOpener``."""

    def __init__(self, request: Request, catalogue: Catalogue) -> None:
        self._request = request
        self._catalogue = catalogue
        self._last: tuple[object, LoadedChatModel] | None = None

    def __call__(self, **changes: object) -> LoadedChatModel:
        """Load what the request names with some changes; weights only where another model is named."""
        request = self._changed(changes) if changes else self._request
        wanted = _loaded_by(request)
        if self._last is not None and self._last[0] == wanted:
            same = replace(self._last[1], settings=request.get(DecodingSettings))
            model = same.decoding_by(request.components["decoder"])
        else:
            self._last = None  # gives its memory back before the next model takes more
            model = open_chat_model(request, self._catalogue)
        self._last = wanted, model
        return model

    def _changed(self, changes: Mapping[str, object]) -> Request:
        """Return the request with some changes; the options of a decoder that is left go with it."""
        values = {**self._request.values(), **changes}
        shape = self._request.schema
        classes = option_classes(shape, everything_chosen(shape, values, self._catalogue))
        kept = {field.name for options in classes for field in fields_of(options)} | changes.keys()
        return resolve(shape, {name: value for name, value in values.items() if name in kept}, self._catalogue)

    def names(self, kind: str) -> list[str]:
        """Return the names there are of a kind."""
        return self._catalogue.of_kind(kind).names()


def _loaded_by(request: Request) -> tuple[object, ...]:
    """Return what decides which weights are loaded, and how: while it is the same, so is the model."""
    runtime = request.components["decoder"].provided.spec.runtime
    template = request.get(DecodingSettings).template
    return request.get(ModelSettings), template, request.components.get("attention"), runtime
