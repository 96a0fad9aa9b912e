"""A model of LMFlow as lm-evaluation-harness asks for one: likelihoods and answers, by the rules of ``HFLM``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmflow_benchmarks.asked_model import AskedModel
from lmflow_core.api import Message, RequestError

_LONGEST_ANSWER = 256
# Of what a task says about its answers, those that options of the decoders say as well.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is untyped
    """Answers the harness's requests by asking a model."""

    def __init__(self, asked: AskedModel) -> None:
        super().__init__()
        self._asked = asked

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._asked.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context."""
        return self._asked.prefix_token_id

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self._asked.max_length

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests by."""
        return self._asked.reference.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the model's own chat template, where one is asked for."""
        return self._asked.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model's own chat template renders it.

        Raises:
            RequestError: there is no template, or it refuses the conversation.
        """
        messages = [Message(each["role"], each["content"]) for each in chat_history]
        return self._asked.rendered(messages, add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Return the ids of a text, opened where the tokenizer opens texts and this one is not opened yet."""
        return self._asked.encode(string, add_special_tokens)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: object
    ) -> list[tuple[float, bool]]:
        """Return for each context and continuation how likely the second is, and whether it is the likeliest.

        Raises:
            RequestError: a continuation has no tokens, or does not fit the context of the model.
        """
        for texts, _context, continuation in requests:
            self._asked.check(continuation, None if texts is None else str(texts[1]))
        return self._asked.likelihoods([(context, continuation) for _texts, context, continuation in requests])

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
        return self._asked.written(
            contexts, stops, most, {name: value for name, value in wanted.items() if value is not None}
        )
