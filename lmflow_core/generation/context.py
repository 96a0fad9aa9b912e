"""Whether a prompt fits the context, and how long its answer may be: the one rule, for all who ask for answers.

A prompt fits when it leaves room for at least one token. Its answer has as many tokens as were asked for, or ends, with
the finish reason ``length``, where the context does. A decoder that goes on beyond the context has no limit.
"""

from __future__ import annotations

from lmflow_core.contracts.decoder import DecoderSpec
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.errors import PromptTooLongError


def context_limit(model: LanguageModel, spec: DecoderSpec) -> int | None:
    """Return how many tokens prompt and answer may have together with a decoder; None when there is no limit."""
    return None if spec.unbounded else model.context_length


def answer_limit(context: int | None, prompt_tokens: int, max_new_tokens: int) -> int:
    """Return how many tokens the answer to a prompt may have, at least one.

    Args:
        context: what :func:`context_limit` returned.
        prompt_tokens: length of the prompt.
        max_new_tokens: how many tokens are asked for.

    Raises:
        PromptTooLongError: the prompt does not fit.
    """
    if context is None:
        return max_new_tokens
    if prompt_tokens >= context:
        raise PromptTooLongError(prompt_tokens, context)
    return min(max_new_tokens, context - prompt_tokens)


def session_room(context: int | None, max_new_tokens: int) -> int:
    """Return the room that a conversation is shortened for: what is asked for, at most half of the context."""
    return max_new_tokens if context is None else min(max_new_tokens, context // 2)
