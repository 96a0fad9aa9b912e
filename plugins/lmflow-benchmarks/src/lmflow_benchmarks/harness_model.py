"""A model of LMFlow as lm-evaluation-harness asks for one: likelihoods and answers, with the harness's rules for text.

Texts become tokens as in the harness's own ``HFLM``, so that figures can be compared with published ones: control
tokens in a text count as such, a sequence is opened where the tokenizer does so and the text does not itself, and the
boundary between a context and what follows lies where the tokens of the context alone end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmflow_core.api import (
    IGNORE,
    EncodedSequence,
    LanguageModel,
    Message,
    PromptAnswers,
    RequestError,
    encode_rendered,
    printable,
)

_UNKNOWN_CONTEXT = 2048
_LONGEST_ANSWER = 256
# Of what a task says about its answers, those that options of the decoders say as well.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# Marks the end of a message, which a template may put something behind.
_END = "\u2e28end of the message\u2e29"
# One context is asked for with each of its choices.
_CONTEXTS_KEPT = 64


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is untyped
    """Answers the harness's requests.

    Args:
        model: loaded.
        answers: writes its answers.
        seed: of those that are sampled.
    """

    def __init__(self, model: LanguageModel, answers: PromptAnswers, seed: int) -> None:
        super().__init__()
        self._model = model
        self._answers = answers
        self._seed = seed
        self._encoded = lru_cache(_CONTEXTS_KEPT)(self._encode)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._control(self._model.tokenizer.eos)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context: the opening one, or else the one that ends texts."""
        return self._control(self._model.tokenizer.bos_token or self._model.tokenizer.eos)

    def _control(self, token: str | None) -> int:
        number = None if token is None else self._model.tokenizer.control_tokens.get(token)
        if number is None:
            raise RequestError(
                f"{self._model.reference} has no token that opens or ends a text, which tasks begin with"
            )
        return number

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self._model.context_length or _UNKNOWN_CONTEXT

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests by."""
        return self._model.reference.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the model's own chat template, where one is asked for."""
        return self._model.tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model's own chat template renders it.

        Without ``add_generation_prompt`` the last message is one that the model goes on with. A template that takes no
        system message is given none.

        Raises:
            RequestError: there is no template, or it refuses the conversation.
        """
        messages = [Message(each["role"], each["content"]) for each in chat_history]
        if not add_generation_prompt:
            messages[-1] = replace(messages[-1], content=f"{messages[-1].content}{_END} ")
        for tried in (messages, [message for message in messages if message.role != "system"]):
            text = self._model.tokenizer.render_chat(tried, add_generation_prompt)
            if text is not None:
                return text if add_generation_prompt else _up_to_end(text)
        if self._model.tokenizer.chat_template is None:
            raise RequestError(f"{self._model.reference} has no chat template: leave out --apply-chat-template")
        raise RequestError(f"the chat template of {self._model.reference} refuses the conversation of a task")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return the ids of a text, opened where the tokenizer opens texts and this one is not opened yet."""
        return list(self._encoded(string, add_special_tokens))

    def _encode(self, string: str, add_special_tokens: bool | None) -> tuple[int, ...]:
        tokenizer = self._model.tokenizer
        (ids,) = encode_rendered(tokenizer, [string])
        opened = string.startswith(tokenizer.bos_token or tokenizer.eos or "\0")
        if tokenizer.bos is None or add_special_tokens is False or (add_special_tokens is None and opened):
            return tuple(ids)
        return (tokenizer.control_tokens[tokenizer.bos], *ids)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """Return for each context and continuation how likely the second is, and whether it is the likeliest.

        Raises:
            RequestError: a continuation has no tokens, or does not fit the context of the model.
        """
        sequences, cut = [], 0
        for texts, context, continuation in requests:
            self._check(texts, continuation)
            ids = [*context, *continuation][-(self.max_length + 1) :]
            cut += len(ids) < len(context) + len(continuation)
            before = len(ids) - len(continuation)
            sequences.append(EncodedSequence(ids, [*[IGNORE] * before, *continuation]))
        if cut:
            print(
                f"lmflow: {cut} of {len(requests)} texts are longer than the model's context of {self.max_length} "
                "tokens: they are cut at their beginning, as the harness does",
                file=sys.stderr,
            )
        scores = list(self._model.score(sequences))
        if any(score.correct is None for score in scores):
            raise RequestError(
                f"--benchmark lm-eval: the runtime of {self._model.reference} does not tell its likeliest tokens"
            )
        return [(-score.nll, score.correct == score.tokens) for score in scores]

    def _check(self, texts: Any, continuation: Sequence[int]) -> None:
        shown = "" if texts is None else f" ({printable(str(texts[1]), 60)!r})"
        if not continuation:
            raise RequestError(f"a task asks for the likelihood of a choice without any token{shown}")
        if len(continuation) > self.max_length:
            raise RequestError(
                f"a choice of a task has {len(continuation)} tokens, and the context of {self._model.reference} "
                f"{self.max_length}{shown}"
            )

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return how likely each text is as a whole; one that is longer than the context goes in windows.

        A text that the tokenizer opens has the opening token twice, and the second is one of those that count: this is
        how the harness defines the figure.
        """
        windows = [self._windows(request.args[0]) for request in requests]
        found = iter(self._loglikelihood_tokens([(None, *window) for each in windows for window in each]))
        return [sum(next(found)[0] for _ in each) for each in windows]

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        rolling = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in rolling]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes behind each context, up to a stop.

        Raises:
            RequestError: a task asks for what the decoder does not do, or for more tokens than the context has.
        """
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(number)
        texts = [""] * len(requests)
        for numbers in groups.values():
            contexts = [requests[number].args[0] for number in numbers]
            for number, text in zip(numbers, self._written(contexts, requests[numbers[0]].args[1]), strict=True):
                texts[number] = text
        return texts

    def _written(self, contexts: Sequence[str], asked: Mapping[str, Any]) -> list[str]:
        wanted = dict(normalize_gen_kwargs(dict(asked), _LONGEST_ANSWER))
        stops = handle_stop_sequences(wanted.pop("until", None), eos=None)
        most = wanted.pop("max_gen_toks")
        wanted.pop("do_sample", None)
        unknown = [name for name in wanted if name not in _SAMPLING]
        if unknown:
            raise RequestError(
                f"a task asks for answers by {unknown[0]}={wanted[unknown[0]]!r}, which is not known here"
            )
        room = self.max_length - most
        if room < 1:
            raise RequestError(
                f"a task asks for answers of {most} tokens, and the context of {self._model.reference} has "
                f"{self.max_length}"
            )
        prompts = [self.tok_encode(context)[-room:] for context in contexts]
        options = {name: value for name, value in wanted.items() if value is not None}
        written = self._answers(
            prompts, max_new_tokens=most, stops=[stop for stop in stops if stop], seed=self._seed, options=options
        )
        return [answer.text for answer in written]


def _up_to_end(rendered: str) -> str:
    """Return a rendered conversation up to the end of its last message, which the model is to go on with."""
    before, _, behind = rendered.rpartition(_END)
    return before if behind.startswith(" ") else before.rstrip()  # a template that trims has trimmed the message too
