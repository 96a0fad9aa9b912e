"""From what a request asks for to an answer that waits to be written."""

from __future__ import annotations

import random

from lmflow_core.api import AnswerStream, OptionError, TalkingModel
from lmflow_serve.errors import invalid
from lmflow_serve.requests import Asked


class Answering:
    """Begins answers of one model.

    Args:
        model: answers as the command line says where a request says nothing. Requests that give no seed get those of
            a sequence that its seed begins.
        most_tokens: longest answer that a request may ask for; None leaves it to the model's context.
    """

    def __init__(self, model: TalkingModel, most_tokens: int | None) -> None:
        self._model = model
        self._most_tokens = most_tokens
        self._seeds = random.Random(model.settings.seed)

    def begin(self, asked: Asked) -> AnswerStream:
        """Return the answer to a request; nothing of it is written yet.

        Raises:
            ApiError: the model, its template or its decoder cannot do what is asked.
        """
        if asked.tools and self._model.read_calls("") is None:
            raise invalid("the model's template has no known form for calls of tools", "tools", "unsupported_parameter")
        wanted = self._wanted(asked)
        model = self._configured(asked).changed(max_new_tokens=wanted)
        answer = _prompted(model, asked)
        room = self._room(answer, asked)
        return answer if wanted <= room else _prompted(model.changed(max_new_tokens=room), asked)

    def _wanted(self, asked: Asked) -> int:
        if asked.max_tokens is None:
            default = self._model.settings.max_new_tokens
            return min(default, self._most_tokens or default)
        if self._most_tokens is not None and asked.max_tokens > self._most_tokens:
            name = asked.max_tokens_param
            raise invalid(f"'{name}' may be at most {self._most_tokens} at this server", name)
        return asked.max_tokens

    def _configured(self, asked: Asked) -> TalkingModel:
        seed = asked.seed if asked.seed is not None else self._seeds.getrandbits(32)
        model = self._model.changed(seed=seed, stop=(*self._model.settings.stop, *asked.stop))
        options = {**asked.options, **({} if asked.logprobs is None else {"logprobs": asked.logprobs})}
        for name, value in options.items():
            try:
                model = model.changed(**{name: value})
            except OptionError as error:
                raise invalid(str(error), name) from error
        return model

    def _room(self, answer: AnswerStream, asked: Asked) -> int:
        """Return how many tokens of the context are left for the answer.

        A prompt is never cut, and an answer is no shorter than what the request asks for.
        """
        context = self._model.context_length
        if context is None:
            return self._wanted(asked)
        room = context - answer.prompt_tokens
        if room < (asked.max_tokens or 1):
            raise invalid(
                f"the model's context is {context} tokens; the prompt takes {answer.prompt_tokens} "
                f"and the answer {asked.max_tokens or 'at least 1'}: shorten one of them",
                "messages" if asked.prompt is None else "prompt",
                "context_length_exceeded",
            )
        return room


def _prompted(model: TalkingModel, asked: Asked) -> AnswerStream:
    if asked.prompt is not None:
        return model.complete(asked.prompt)
    opening = [] if asked.messages[0].role == "system" else model.opening()
    try:
        return model.answer([*opening, *asked.messages], asked.tools)
    except ValueError as error:
        raise invalid(str(error), "messages") from error
