"""Each form of rows: the example it makes, what it says of a bad row, and that no two forms claim the same row."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lmflow_core.api import Conversation, DatasetFormat, DatasetSpec, Example, Message, Prompted, Text
from lmflow_datasets import formats, plugin

SPECS: dict[str, DatasetSpec] = {spec.name: spec for spec in plugin.lmflow_register_datasets()}
READERS: dict[str, DatasetFormat] = {
    name: getattr(formats, spec.target.partition(":")[2])() for name, spec in SPECS.items()
}
TURNS = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]


def _conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns))


GOOD: dict[str, tuple[str, dict[str, Any], Example]] = {
    "text": ("text_only", {"text": "  Some text.\n"}, Text("  Some text.\n")),
    "text with other fields": ("text_only", {"id": 4, "text": "x", "source": None}, Text("x")),
    "prompt and completion": ("text2text", {"input": "2 + 3 =", "output": " 5"}, Prompted("2 + 3 =", " 5")),
    "LMFlow's conversation": (
        "conversation",
        {"conversation_id": 1, "system": "Be brief.", "tools": [], "messages": TURNS},
        _conversation(("system", "Be brief."), ("user", "What is 2 + 3?"), ("assistant", "5")),
    ),
    "LMFlow's conversation, empty system": (
        "conversation",
        {"system": "", "messages": TURNS},
        _conversation(("user", "What is 2 + 3?"), ("assistant", "5")),
    ),
    "LMFlow's conversation, null system": (
        "conversation",
        {"system": None, "messages": TURNS},
        _conversation(("user", "What is 2 + 3?"), ("assistant", "5")),
    ),
    "alpaca": (
        "alpaca",
        {"instruction": "Add.", "input": "2, 3", "output": "5"},
        _conversation(("user", "Add.\n\n2, 3"), ("assistant", "5")),
    ),
    "alpaca without input": (
        "alpaca",
        {"instruction": "Name a colour.", "output": "Red"},
        _conversation(("user", "Name a colour."), ("assistant", "Red")),
    ),
    "alpaca with empty fields": (
        "alpaca",
        {"instruction": "Name a colour.", "input": "", "output": "Red", "system": None, "history": []},
        _conversation(("user", "Name a colour."), ("assistant", "Red")),
    ),
    "alpaca with the whole prompt beside it": (
        "alpaca",
        {"instruction": "Name a colour.", "input": "", "output": "Red", "text": "Below is an instruction"},
        _conversation(("user", "Name a colour."), ("assistant", "Red")),
    ),
    "alpaca with system and history": (
        "alpaca",
        {
            "instruction": "And blue?",
            "output": "Bleu",
            "system": "Translate.",
            "history": [["Red?", "Rouge"], ["Green?", "Vert"]],
        },
        _conversation(
            ("system", "Translate."),
            ("user", "Red?"),
            ("assistant", "Rouge"),
            ("user", "Green?"),
            ("assistant", "Vert"),
            ("user", "And blue?"),
            ("assistant", "Bleu"),
        ),
    ),
    "sharegpt": (
        "sharegpt",
        {"id": "a_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        _conversation(("user", "Hi"), ("assistant", "Hello")),
    ),
    "sharegpt with system and other names": (
        "sharegpt",
        {
            "system": "Be kind.",
            "conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello", "weight": 1}],
        },
        _conversation(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")),
    ),
    "sharegpt, system among the turns": (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be kind."},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello"},
            ]
        },
        _conversation(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")),
    ),
    "messages": (
        "messages",
        {"messages": [{"role": "system", "content": "Be brief."}, *TURNS]},
        _conversation(("system", "Be brief."), ("user", "What is 2 + 3?"), ("assistant", "5")),
    ),
    "messages with white space kept": (
        "messages",
        {"messages": [{"role": "user", "content": " a\n"}, {"role": "assistant", "content": "\tb "}]},
        _conversation(("user", " a\n"), ("assistant", "\tb ")),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_row_becomes_its_example(name: str) -> None:
    form, row, expected = GOOD[name]
    assert READERS[form].read(row) == expected


@pytest.mark.parametrize("name", GOOD)
def test_exactly_one_form_recognises_a_row(name: str) -> None:
    form, row, _ = GOOD[name]
    assert [other for other, reader in READERS.items() if reader.recognises(row)] == [form]


def test_every_form_has_an_example() -> None:
    assert {form for form, _, _ in GOOD.values()} == set(READERS)


MARKS = {
    "text_only": {"text"},
    "text2text": {"input", "output"},
    "alpaca": {"instruction", "output"},
    "sharegpt": {"conversations"},
    "messages": {"messages"},
}
FIELDS = ("text", "input", "output", "instruction", "conversations", "messages", "system", "history", "conversation_id")


def test_forms_overlap_only_where_a_row_holds_the_marks_of_both() -> None:
    for size in range(1, len(FIELDS) + 1):
        for fields in itertools.combinations(FIELDS, size):
            claiming = {name for name, reader in READERS.items() if reader.recognises(dict.fromkeys(fields))}
            if len(claiming) > 1:
                # LMFlow's conversation is recognised as messages with a field beside them.
                marks = [MARKS["messages" if name == "conversation" else name] for name in claiming]
                assert all(mark <= set(fields) for mark in marks), fields
                assert "text_only" not in claiming, fields
                assert claiming != {"conversation", "messages"}, fields
                assert {"alpaca", "text2text"} - claiming, fields


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "text missing": ("text_only", {"body": "x", "id": 1}, "the field 'text' is missing; the row has 'body', 'id'"),
    "an empty row": ("text_only", {}, "the field 'text' is missing; the row has none"),
    "text null": ("text_only", {"text": None}, "the field 'text' must be text, not null"),
    "text a number": ("text_only", {"text": 4}, "the field 'text' must be text, not a number"),
    "text a truth value": ("text_only", {"text": True}, "the field 'text' must be text, not a truth value"),
    "text a list": ("text_only", {"text": ["x"]}, "the field 'text' must be text, not a list"),
    "text blank": ("text_only", {"text": " \n"}, "the field 'text' is empty"),
    "output missing": ("text2text", {"input": "x"}, "the field 'output' is missing; the row has 'input'"),
    "output empty": ("text2text", {"input": "x", "output": ""}, "the field 'output' is empty"),
    "input a number": ("text2text", {"input": 2.5, "output": "x"}, "the field 'input' must be text, not a number"),
    "messages missing": (
        "conversation",
        {"system": "x"},
        "the field 'messages' is missing; the row has 'system'",
    ),
    "system a number": (
        "conversation",
        {"system": 3, "messages": TURNS},
        "the field 'system' must be text, not a number",
    ),
    "instruction missing": ("alpaca", {"output": "x"}, "the field 'instruction' is missing; the row has 'output'"),
    "instruction empty": ("alpaca", {"instruction": "", "output": "x"}, "the field 'instruction' is empty"),
    "alpaca's output missing": (
        "alpaca",
        {"instruction": "x", "input": "y"},
        "the field 'output' is missing; the row has 'instruction', 'input'",
    ),
    "alpaca's input a list": (
        "alpaca",
        {"instruction": "x", "input": ["y"], "output": "z"},
        "the field 'input' must be text, not a list",
    ),
    "history no list": (
        "alpaca",
        {"instruction": "x", "output": "y", "history": "z"},
        "the field 'history' must be a list, not text",
    ),
    "history of threes": (
        "alpaca",
        {"instruction": "x", "output": "y", "history": [["a", "b"], ["a", "b", "c"]]},
        "the field 'history' must hold pairs of texts: [[user, assistant], …]",
    ),
    "history of numbers": (
        "alpaca",
        {"instruction": "x", "output": "y", "history": [["a", 1]]},
        "the field 'history' must hold pairs of texts: [[user, assistant], …]",
    ),
    "conversations no list": (
        "sharegpt",
        {"conversations": {"from": "human"}},
        "the field 'conversations' must be a list, not an object",
    ),
    "a turn without from": (
        "sharegpt",
        {"conversations": [{"value": "x"}]},
        "message 1 of 'conversations': the field 'from' is missing; the row has 'value'",
    ),
    "a turn from a tool": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "x"}, {"from": "observation", "value": "y"}]},
        "message 2 of 'conversations': unknown role 'observation'; roles are system, human, user, gpt, assistant",
    ),
    "a turn without text": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": ""}]},
        "message 1 of 'conversations': the field 'value' is empty",
    ),
    "messages null": ("messages", {"messages": None}, "the field 'messages' must be a list, not null"),
    "a message that is text": (
        "messages",
        {"messages": ["x"]},
        "message 1 of 'messages' must be an object, not text",
    ),
    "a message without content": (
        "messages",
        {"messages": [TURNS[0], {"role": "assistant"}]},
        "message 2 of 'messages': the field 'content' is missing; the row has 'role'",
    ),
    "a message with a tool's call": (
        "messages",
        {"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": []}]},
        "message 2 of 'messages': the field 'content' must be text, not null",
    ),
    "a message with parts": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        "message 1 of 'messages': the field 'content' must be text, not a list",
    ),
    "a message from a stranger": (
        "messages",
        {"messages": [{"role": "gpt", "content": "x"}]},
        "message 1 of 'messages': unknown role 'gpt'; roles are system, user, assistant, tool",
    ),
    "a role that is no text": (
        "messages",
        {"messages": [{"role": 1, "content": "x"}]},
        "message 1 of 'messages': the field 'role' must be text, not a number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_told_exactly(name: str) -> None:
    form, row, message = BAD[name]
    with pytest.raises(ValueError, match=r"^") as caught:
        READERS[form].read(row)
    assert str(caught.value) == message


def test_every_form_tells_of_a_bad_row() -> None:
    assert {form for form, _, _ in BAD.values()} == set(READERS)
