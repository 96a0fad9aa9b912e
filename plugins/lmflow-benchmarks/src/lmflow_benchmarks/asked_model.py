"""A model that is asked by texts: likelihoods of continuations, and answers.

Texts become tokens as in the class for transformers of lm-evaluation-harness (``HFLM``), so that figures can be
compared with published ones: control tokens in a text count as such (but for those in what is marked as data), a
sequence is opened where the tokenizer does so and the text does not itself, and the boundary between a context and what
follows lies where the tokens of the context alone end.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from lmflow_benchmarks.marked import segments, unmarked
from lmflow_core.api import (
    IGNORE,
    EncodedSequence,
    LanguageModel,
    Message,
    PromptAnswers,
    RequestError,
    encode_segments,
    printable,
)

_UNKNOWN_CONTEXT = 2048
# Marks the end of a message, which a template may put something behind.
_END = "\u2e28end of the message\u2e29"
# One context is asked for with each of its choices.
_CONTEXTS_KEPT = 64


class AskedModel:
    """Asks a loaded model.

    Args:
        model: loaded.
        answers: writes its answers.
        seed: of those that are sampled.
        benchmark: the name by which the user chose what asks, for messages.
    """

    def __init__(self, model: LanguageModel, answers: PromptAnswers, seed: int, benchmark: str) -> None:
        self._model = model
        self._answers = answers
        self._seed = seed
        self._benchmark = benchmark
        self._encoded = lru_cache(_CONTEXTS_KEPT)(self._encode)

    @property
    def reference(self) -> str:
        """What the model was opened by."""
        return self._model.reference

    @property
    def eos_token_id(self) -> int:
        """The token that ends a text."""
        return self._control(self._model.tokenizer.eos)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context: the opening one, or else the one that ends texts."""
        return self._control(self._model.tokenizer.bos_token or self._model.tokenizer.eos)

    def _control(self, token: str | None) -> int:
        number = None if token is None else self._model.tokenizer.control_tokens.get(token)
        if number is None:
            raise RequestError(f"{self.reference} has no token that opens or ends a text, which tasks begin with")
        return number

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self._model.context_length or _UNKNOWN_CONTEXT

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template, where it has one."""
        return self._model.tokenizer.chat_template

    def rendered(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the model's own chat template renders it.

        Without ``add_generation_prompt`` the last message is one that the model goes on with. A template that takes no
        system message is given none.

        Raises:
            RequestError: there is no template, or it refuses the conversation.
        """
        messages = list(messages)
        if not add_generation_prompt:
            messages[-1] = replace(messages[-1], content=f"{messages[-1].content}{_END} ")
        for tried in (messages, [message for message in messages if message.role != "system"]):
            text = self._model.tokenizer.render_chat(tried, add_generation_prompt)
            if text is not None:
                return text if add_generation_prompt else _up_to_end(text)
        if self.chat_template is None:
            raise RequestError(f"{self.reference} has no chat template: leave out --apply-chat-template")
        raise RequestError(f"the chat template of {self.reference} refuses the conversation of a task")

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Return the ids of a text, opened where the tokenizer opens texts and this one is not opened yet.

        Raises:
            RequestError: a chat template took apart what comes from data.
        """
        return list(self._encoded(text, add_special_tokens))

    def _encode(self, text: str, add_special_tokens: bool | None) -> tuple[int, ...]:
        tokenizer = self._model.tokenizer
        try:
            pieces = segments(text)
        except ValueError as error:
            raise RequestError(f"the chat template of {self.reference} takes a message apart: {error}") from error
        (ids,) = encode_segments(tokenizer, [pieces])
        opened = text.startswith(tokenizer.bos_token or tokenizer.eos or "\0")
        if tokenizer.bos is None or add_special_tokens is False or (add_special_tokens is None and opened):
            return tuple(ids)
        return (tokenizer.control_tokens[tokenizer.bos], *ids)

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the ids of a context and of what follows; white space between the two belongs to the second."""
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        if not kept:
            return [self.prefix_token_id], self.encode(continuation, add_special_tokens=False)
        before = self.encode(kept)
        return before, self.encode(kept + continuation)[len(before) :]

    def check(self, continuation: Sequence[int], text: str | None) -> None:
        """Check that the likelihood of a continuation can be asked for.

        Raises:
            RequestError: it has no tokens, or does not fit the context of the model.
        """
        shown = "" if text is None else f" ({printable(unmarked(text), 60)!r})"
        if not continuation:
            raise RequestError(f"a task asks for the likelihood of a choice without any token{shown}")
        if len(continuation) > self.max_length:
            raise RequestError(
                f"a choice of a task has {len(continuation)} tokens, and the context of {self.reference} "
                f"{self.max_length}{shown}"
            )

    def likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Return for each context and continuation how likely the second is, and whether it is the likeliest.

        Raises:
            RequestError: the runtime does not tell the likeliest tokens.
        """
        sequences, cut = [], 0
        for context, continuation in pairs:
            ids = [*context, *continuation][-(self.max_length + 1) :]
            cut += len(ids) < len(context) + len(continuation)
            before = len(ids) - len(continuation)
            sequences.append(EncodedSequence(ids, [*[IGNORE] * before, *continuation]))
        self._tell_cut(cut, len(pairs))
        scores = list(self._model.score(sequences))
        if any(score.correct is None for score in scores):
            raise RequestError(
                f"--benchmark {self._benchmark}: the runtime of {self.reference} does not tell its likeliest tokens"
            )
        return [(-score.nll, score.correct == score.tokens) for score in scores]

    def written(
        self, contexts: Sequence[str], stops: Sequence[str], most: int, options: Mapping[str, object] | None = None
    ) -> list[str]:
        """Return what the model writes behind each context, up to a stop or ``most`` tokens.

        Raises:
            RequestError: the decoder does not do what ``options`` say, or the context has no room for so many tokens.
        """
        room = self.max_length - most
        if room < 1:
            raise RequestError(
                f"a task asks for answers of {most} tokens, and the context of {self.reference} has {self.max_length}"
            )
        prompts = [self.encode(context) for context in contexts]
        self._tell_cut(sum(len(prompt) > room for prompt in prompts), len(prompts))
        written = self._answers(
            [prompt[-room:] for prompt in prompts],
            max_new_tokens=most,
            stops=[stop for stop in stops if stop],
            seed=self._seed,
            options=options,
        )
        return [answer.text for answer in written]

    def _tell_cut(self, cut: int, texts: int) -> None:
        if cut:
            print(
                f"lmflow: {cut} of {texts} texts are longer than the model's context of {self.max_length} tokens: they "
                "are cut at their beginning, as lm-evaluation-harness does",
                file=sys.stderr,
            )


def _up_to_end(rendered: str) -> str:
    """Return a rendered conversation up to the end of its last message, which the model is to go on with."""
    before, _, behind = rendered.rpartition(_END)
    return before if behind.startswith(" ") else before.rstrip()  # a template that trims has trimmed the message too
