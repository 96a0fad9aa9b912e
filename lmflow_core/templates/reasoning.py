"""The reasoning of an assistant's turn: where it is found, and whether a template writes it."""

from __future__ import annotations

from lmflow_core.templates.description import Description, Reasoning
from lmflow_core.templates.patterns import around


def reasoning_marks(template: Description, form: Reasoning) -> tuple[str, str]:
    """Return what opens and what closes the reasoning in a content that holds both it and the answer."""
    before, after = around(form.text)
    return before.strip(), (after + around(template.assistant)[0]).strip()


def split_reasoning(template: Description, given: str | None, content: str) -> tuple[str, str]:
    """Return the reasoning of a turn and its answer; a content that holds both, as a model writes it, is split.

    Args:
        template: with its form of reasoning, if any.
        given: the reasoning that stands beside the content; None where there is none.
        content: of the turn.
    """
    if template.reasoning is None or given is not None:
        return given or "", content
    opens, closes = reasoning_marks(template, template.reasoning)
    if closes not in content:
        return "", content
    reasoning = content.split(closes)[0].rstrip("\n").split(opens)[-1].lstrip("\n")
    return reasoning, content.split(closes)[-1].lstrip("\n")


def shows_reasoning(template: Description, reasoning: str, *, answers_last: bool, is_last: bool) -> bool:
    """Whether a turn is written with its reasoning.

    Args:
        template: with its form of reasoning, if any.
        reasoning: of the turn; empty where there is none.
        answers_last: the turn stands behind the last question.
        is_last: it is the last turn of all.
    """
    form = template.reasoning
    if form is None or not (answers_last or form.keep):
        return False
    return bool(reasoning or form.opening or (form.always and is_last))


def follows_from_prompt(template: Description, reasoning: str, shown: bool, answers_last: bool) -> bool:
    """Whether a turn is what the model would have to write behind its prompt.

    It is not where reasoning is left out, which the model would have to write, or written behind a prompt that has
    closed it.
    """
    form = template.reasoning
    if form is None:
        return True
    if form.closed:
        return not shown and not reasoning and (answers_last or form.without == form.closed)
    return shown or not (reasoning or form.opening)
