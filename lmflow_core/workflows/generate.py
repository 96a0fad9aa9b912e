"""Generation: a prompt, an answer, statistics; and the conversation that ``chat`` keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from lmflow_core.answers import Answer, all_stops, prompt_ids
from lmflow_core.contracts import Decoder, LanguageModel, Template
from lmflow_core.conversations import Message
from lmflow_core.job import Request
from lmflow_core.opening import choose_template, open_model
from lmflow_core.registry import Catalogue
from lmflow_core.settings import DecodingSettings, ModelSettings


@dataclass
class Talker:
    """A loaded model with a decoder and a template, ready to answer. ``template`` is None for raw prompts."""

    model: LanguageModel
    decoder: Decoder
    template: Template | None
    settings: DecodingSettings
    history: list[Message] = field(default_factory=list)

    def answer(self, messages: list[Message]) -> Answer:
        """Return the answer to a conversation that ends with the user; iterate over it to have it written."""
        tokenizer = self.model.tokenizer
        prompt = prompt_ids(tokenizer, self.template, messages)
        return Answer(
            self.decoder,
            self.model,
            prompt,
            self.settings,
            all_stops(self.settings, self.template, tokenizer),
        )

    def opening(self) -> list[Message]:
        """Return the messages a conversation starts with."""
        return [Message("system", self.settings.system)] if self.settings.system is not None else []

    def ask(self, prompt: str) -> Answer:
        """Return the answer to the next turn of the conversation; :meth:`keep` it once it is written."""
        self.history = self.history or self.opening()
        self.history.append(Message("user", prompt))
        return self.answer(self.history)

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
    chosen = request.components["decoder"]
    needed_by = f"decoder {chosen.name!r}"
    opened = open_model(request.get(ModelSettings), catalogue, chosen.provided.spec.runtime, needed_by)
    template = None if raw else choose_template(settings.template, opened, catalogue)[1]
    decoder: Decoder = chosen.make(catalogue)
    return Talker(opened.load(), decoder, template, settings)
