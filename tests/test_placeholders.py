"""Names left open in example data are told, and not learned."""

from __future__ import annotations

import pytest

from lmflow_core.contracts.examples import Conversation, Message
from lmflow_core.data.placeholders import check_placeholders


def _answered(answer: str, asked: str = "Who are you?") -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer)))


@pytest.mark.parametrize("answer", ["I am {{name}}, made by {{author}}.", "I am {{ Name }}.", "我是 {{name}}。"])
def test_an_answer_with_a_name_left_open_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match=r"the placeholder \{\{ ?[Nn]ame ?\}\}: replace it in the file"):
        check_placeholders(_answered(answer))


@pytest.mark.parametrize(
    "answer",
    [
        "Write `Hello {{name}}` into the template.",
        "<p>Hello {{ name }}</p>",
        "{% if name %}{{ name }}{% endif %}",
        "The set {{1}, {2}} has two members.",
        "I am Lumo.",
    ],
)
def test_braces_that_are_meant_are_learned(answer: str) -> None:
    check_placeholders(_answered(answer, asked="What is {{name}}?"))
