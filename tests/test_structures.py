"""Words around prompts: rows of a plain prompt get them, texts stay, and conversations are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_core.contracts.examples import Conversation, Message, Prompted, Text
from lmflow_core.contracts.settings import DataSettings, EvaluationDataSettings
from lmflow_core.data.examples import Located
from lmflow_core.data.structures import structure_of, structured
from lmflow_core.errors import DataError

_FILE = Path("rows.jsonl")


@pytest.mark.parametrize("place", ["{input}", "{input_text}"])
def test_words_stand_around_a_prompt(place: str) -> None:
    found = structured(Located(Prompted("1 {input} 2", "3"), _FILE, 1), f"Human: {place}\nAssistant:")
    assert found.example == Prompted("Human: 1 {input} 2\nAssistant:", "3")


def test_a_text_stays_and_a_conversation_has_a_template() -> None:
    text = Located(Text("a"), _FILE, 1)
    assert structured(text, "Human: {input}") is text
    chat = Conversation((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(DataError, match=r"rows.jsonl, row 2: .* around a conversation are those of --template"):
        structured(Located(chat, _FILE, 2), "Human: {input}")


def test_only_what_is_measured_has_a_structure() -> None:
    assert structure_of(DataSettings(dataset=(_FILE,))) is None
    assert structure_of(EvaluationDataSettings(prompt_structure="{input}!")) == "{input}!"
    for wrong in ("none", "{input} {input}", ""):
        with pytest.raises(ValueError, match=r"must hold \{input\} once"):
            EvaluationDataSettings(prompt_structure=wrong)
