"""From what a request asks for to an answer that waits to be written."""

from __future__ import annotations

import random
from collections.abc import Callable

from lmflow_core.api import AnswerStream, ChatModel, LmflowError, PromptTooLongError, RequestError
from lmflow_serve.errors import invalid
from lmflow_serve.images import Images
from lmflow_serve.requests import FIELDS, Asked


class Answering:
    """Begins answers of one model.

    Args:
        model: answers as the command line says where a request says nothing. Requests that give no seed get those of
            a sequence that its seed begins.
        most_tokens: longest answer that a request may ask for; None leaves it to the model's context.
        check: raises ``RequestError`` for an answer that there is no memory for.
        images: sees to those of the messages.
    """

    def __init__(
        self, model: ChatModel, most_tokens: int | None, check: Callable[[AnswerStream], None], images: Images
    ) -> None:
        self._model = model
        self._most_tokens = most_tokens
        self._check = check
        self._images = images
        self._seeds = random.Random(model.settings.seed)

    def begin(self, asked: Asked) -> list[AnswerStream]:
        """Return the answers to a request; nothing of them is written yet.

        Raises:
            ApiError: the model, its template or its decoder cannot do what is asked.
        """
        if asked.tools and self._model.read_calls("") is None:
            raise invalid("the model's template has no known form for calls of tools", "tools", "unsupported_parameter")
        model = self._configured(asked).changed(max_new_tokens=self._wanted(asked))
        seed = asked.seed if asked.seed is not None else self._seeds.getrandbits(32)
        param = "messages" if asked.prompt is None else "prompt"
        try:
            answers = [self._prompted(model.changed(seed=(seed + at) % 2**32), asked) for at in range(asked.n)]
            for answer in answers:
                self._check(answer)
        except RequestError as error:
            raise invalid(str(error), param, "context_length_exceeded") from error
        return answers

    def _prompted(self, model: ChatModel, asked: Asked) -> AnswerStream:
        if asked.prompt is not None:
            return model.complete(asked.prompt)
        opening = [] if asked.messages[0].role == "system" else model.opening()
        try:
            return model.answer([*opening, *asked.messages], asked.tools)
        except PromptTooLongError:
            raise
        except RequestError as error:
            raise invalid(str(error), "messages") from error
        except ValueError as error:
            raise self._images.blamed(asked.messages, error) from error

    def _wanted(self, asked: Asked) -> int:
        if asked.max_tokens is None:
            default = self._model.settings.max_new_tokens
            return min(default, self._most_tokens or default)
        if self._most_tokens is not None and asked.max_tokens > self._most_tokens:
            name = asked.max_tokens_param
            raise invalid(f"'{name}' may be at most {self._most_tokens} at this server", name)
        return asked.max_tokens

    def _configured(self, asked: Asked) -> ChatModel:
        model = self._model.changed(stop=(*self._model.settings.stop, *asked.stop))
        options = {**asked.options, **({} if asked.logprobs is None else {"logprobs": asked.logprobs})}
        for name, value in options.items():
            try:
                model = model.changed(**{name: value})
            except LmflowError as error:
                raise invalid(str(error), FIELDS.get(name, name)) from error
        return model
