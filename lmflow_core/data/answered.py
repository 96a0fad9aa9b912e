"""Answers that data holds, each with its prompt."""

from __future__ import annotations

from lmflow_core.contracts.examples import Candidates, Conversation, Judged, Message, Preference, Prompt, Prompted
from lmflow_core.contracts.reward import AnsweredPrompt
from lmflow_core.data.examples import Located


def answered(located: Located) -> tuple[AnsweredPrompt, ...]:
    """Return the answers of an example: one, the chosen and the rejected, or each of several candidates.

    A prompt that is used without a template stands as the message of a user.

    Raises:
        ValueError: it holds no answer to a prompt.
    """
    match located.example:
        case Preference(chosen=chosen, rejected=rejected):
            return (_answered(chosen, located), _answered(rejected, located))
        case Candidates(prompt=prompt, texts=texts):
            return tuple(_answered(Prompted(prompt, text), located) for text in texts)
        case Judged(example=example) | (Conversation() | Prompted() as example):
            return (_answered(example, located),)
    raise ValueError(f"a {located.example.kind} example has no answer to a prompt that could be scored")


def _answered(example: Conversation | Prompted, located: Located) -> AnsweredPrompt:
    if isinstance(example, Prompted):
        return AnsweredPrompt(Prompt((Message("user", example.prompt),), (), located.fields), example.completion)
    *before, last = example.messages
    return AnsweredPrompt(Prompt(tuple(before), example.tools, located.fields), last.text)
