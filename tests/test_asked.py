"""Prompts of rows: what an objective that learns from prompts makes of conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmflow_core.contracts.examples import Conversation, Message, Prompt, Text
from lmflow_core.contracts.settings import DataSettings
from lmflow_core.data.asked import as_prompt
from lmflow_core.data.examples import Located
from lmflow_core.data.selection import selected
from lmflow_core.errors import DataError
from lmflow_core.plugins.registry import Catalogue

_ASKED, _ANSWER = Message("user", "2 + 3?"), Message("assistant", "#### 5")


@pytest.mark.parametrize("example", [Prompt((_ASKED,)), Conversation((_ASKED, _ANSWER))])
def test_a_prompt_has_the_fields_of_its_row(example: Prompt | Conversation) -> None:
    located = Located(example, Path("x"), 1, {"answer": "#### 5"})
    assert as_prompt(located) == Prompt((_ASKED,), (), {"answer": "#### 5"})


def test_a_text_has_no_prompt() -> None:
    assert as_prompt(Located(Text("x"), Path("x"), 1)) is None


def _selected(write_rows: Any, *accepted: str) -> list[Any]:
    file = write_rows([{"question": "2 + 3?", "answer": "#### 5"}])
    settings = DataSettings(dataset=(file,))
    return [located.example for located in selected(settings, Catalogue.discover(), 0, accepted)]


def test_a_conversation_is_a_prompt_where_prompts_are_asked_for(write_rows: Any) -> None:
    row = {"question": "2 + 3?", "answer": "#### 5"}
    assert _selected(write_rows, "prompt") == [Prompt((_ASKED,), (), row)]
    assert _selected(write_rows, "prompt", "conversation") == [Conversation((_ASKED, _ANSWER))]
    with pytest.raises(DataError, match="a conversation example, but the objective learns from preference"):
        _selected(write_rows, "preference")
