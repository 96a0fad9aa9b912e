"""Each form of rows: the example it makes, what it says of a bad row, and that no two forms claim the same row."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest

from lmflow_core.api import (
    Candidates,
    Conversation,
    DatasetFormat,
    DatasetSpec,
    Example,
    ImagePart,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompt,
    Prompted,
    Text,
    ToolCall,
    Value,
)
from lmflow_datasets import plugin

SPECS: dict[str, DatasetSpec] = {spec.name: spec for spec in plugin.lmflow_register_datasets()}
READERS: dict[str, DatasetFormat] = {
    name: getattr(importlib.import_module(module), reader)()
    for name, spec in SPECS.items()
    for module, _, reader in [spec.target.partition(":")]
}
TURNS = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]


def _conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns))


GOOD: dict[str, tuple[str, dict[str, Any], Example]] = {
    "text": ("text_only", {"text": "  Some text.\n"}, Text("  Some text.\n")),
    "text with other fields": ("text_only", {"id": 4, "text": "x", "source": None}, Text("x")),
    "prompt and completion": ("text2text", {"input": "2 + 3 =", "output": " 5"}, Prompted("2 + 3 =", " 5")),
    "a question": (
        "question_answer",
        {"question": "What is 2 + 3?", "answer": "5", "id": 7},
        _conversation(("user", "What is 2 + 3?"), ("assistant", "5")),
    ),
    "an instruction with context": (
        "instruction_response",
        {"instruction": "Sum up.", "context": "It rained.", "response": "Rain.", "category": "summary"},
        _conversation(("user", "Sum up.\n\nIt rained."), ("assistant", "Rain.")),
    ),
    "an instruction without context": (
        "instruction_response",
        {"instruction": "Name a colour.", "context": "", "response": "Blue."},
        _conversation(("user", "Name a colour."), ("assistant", "Blue.")),
    ),
    "two dialogues": (
        "dialogue_pair",
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: How are you?\n\nAssistant: Well.\n\nThanks.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: How are you?\n\nAssistant: Go away.",
        },
        Preference(
            _conversation(
                ("user", "Hi"), ("assistant", "Yes?"), ("user", "How are you?"), ("assistant", "Well.\n\nThanks.")
            ),
            _conversation(("user", "Hi"), ("assistant", "Yes?"), ("user", "How are you?"), ("assistant", "Go away.")),
        ),
    ),
    "two answers to a question": (
        "question_pair",
        {"qid": 7, "question": "Why?", "response_j": "So.", "response_k": "No.", "metadata": ["x"]},
        Preference(Prompted("Question: Why?\n\nAnswer: ", "So."), Prompted("Question: Why?\n\nAnswer: ", "No.")),
    ),
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


CALL = ToolCall("add", {"a": 2, "b": 3})
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ASKED = Message("user", "What is 2 + 3?")
FIVE, SIX = Message("assistant", "5"), Message("assistant", "6")
GOOD |= {
    "prompt and completion by those names": (
        "prompt_completion",
        {"prompt": "2 + 3 =", "completion": " 5"},
        Prompted("2 + 3 =", " 5"),
    ),
    "prompt and completion as messages": (
        "prompt_completion",
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        Conversation((ASKED, FIVE)),
    ),
    "several answers": ("text_to_textlist", {"input": "x", "output": ["a", "b"]}, Candidates("x", ("a", "b"))),
    "several answers with scores": (
        "text_to_scored_textlist",
        {"input": "x", "output": [{"score": 1, "text": "a"}, {"score": 0.5, "text": "b"}]},
        Candidates("x", ("a", "b"), (1.0, 0.5)),
    ),
    "a number": ("float_only", {"value": 3}, Value(3.0)),
    "images and text": (
        "image_text",
        {"images": ["a.png"], "text": "<image> What?"},
        ImageText(("a.png",), "<image> What?"),
    ),
    "one image": ("image_text", {"images": "a.png", "text": "What?"}, ImageText(("a.png",), "What?")),
    "sharegpt with tools": (
        "sharegpt",
        {
            "tools": '[{"name": "add", "parameters": {"type": "object"}}]',
            "conversations": [
                {"from": "human", "value": "What is 2 + 3?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 3}}'},
                {"from": "observation", "value": "5"},
                {"from": "gpt", "value": "5"},
            ],
        },
        Conversation((ASKED, Message("assistant", "", tool_calls=(CALL,)), Message("tool", "5"), FIVE), (TOOL,)),
    ),
    "messages with tools": (
        "messages",
        {
            "tools": [TOOL],
            "messages": [
                TURNS[0],
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": "5"},
                TURNS[1],
            ],
        },
        Conversation((ASKED, Message("assistant", "", tool_calls=(CALL,)), Message("tool", "5"), FIVE), (TOOL,)),
    ),
    "messages not all trained": (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                TURNS[0],
                {**TURNS[1], "train": False},
                TURNS[0],
                {**TURNS[1], "weight": 0},
                TURNS[0],
                {**TURNS[1], "weight": 1, "reasoning_content": "2 and 3 more"},
            ]
        },
        Conversation(
            (
                Message("system", "Be brief."),
                ASKED,
                Message("assistant", "5", train=False),
                ASKED,
                Message("assistant", "5", train=False),
                ASKED,
                Message("assistant", "5", reasoning="2 and 3 more"),
            )
        ),
    ),
    "messages in parts": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]},
                TURNS[1],
            ]
        },
        Conversation((ASKED, FIVE)),
    ),
    "a pair of conversations": (
        "paired_conversation",
        {
            "chosen": {"messages": TURNS},
            "rejected": {"messages": [TURNS[0], {**TURNS[1], "content": "6"}]},
            "margin": 2,
        },
        Preference(Conversation((ASKED, FIVE)), Conversation((ASKED, SIX)), 2.0),
    ),
    "a pair of texts": (
        "paired_text_to_text",
        {"prompt": "2 + 3 =", "chosen": " 5", "rejected": " 6"},
        Preference(Prompted("2 + 3 =", " 5"), Prompted("2 + 3 =", " 6")),
    ),
    "a pair behind a prompt of messages": (
        "preference",
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{**TURNS[1], "content": "6"}]},
        Preference(Conversation((ASKED, FIVE)), Conversation((ASKED, SIX))),
    ),
    "a pair behind sharegpt turns": (
        "preference",
        {
            "conversations": [{"from": "human", "value": "What is 2 + 3?"}],
            "chosen": {"from": "gpt", "value": "5"},
            "rejected": {"from": "gpt", "value": "6"},
        },
        Preference(Conversation((ASKED, FIVE)), Conversation((ASKED, SIX))),
    ),
    "a pair behind an instruction": (
        "preference",
        {"instruction": "What is 2 + 3?", "chosen": "5", "rejected": "6"},
        Preference(Conversation((ASKED, FIVE)), Conversation((ASKED, SIX))),
    ),
    "a pair of whole conversations": (
        "preference",
        {"chosen": TURNS, "rejected": [TURNS[0], {**TURNS[1], "content": "6"}]},
        Preference(Conversation((ASKED, FIVE)), Conversation((ASKED, SIX))),
    ),
    "a prompt of text": ("prompt", {"prompt": "What is 2 + 3?", "answer": 5}, Prompt((ASKED,))),
    "a prompt of messages": (
        "prompt",
        {"prompt": [{"role": "system", "content": "Be brief."}, *TURNS, *TURNS[:1]], "tools": [TOOL]},
        Prompt((Message("system", "Be brief."), ASKED, FIVE, ASKED), (TOOL,)),
    ),
    "a prompt with a system prompt beside it": (
        "prompt",
        {"system": "Be brief.", "prompt": "What is 2 + 3?"},
        Prompt((Message("system", "Be brief."), ASKED)),
    ),
    "messages with images": (
        "messages",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Is "},
                        {"type": "image_url", "image_url": {"url": "http://host/a.png"}, "text": None},
                        {"type": "text", "text": " like "},
                        {"type": "image", "image": "b.png"},
                        {"type": "image", "path": "c.png"},
                        {"type": "image", "url": "d.png"},
                        {"type": "text", "text": "?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "N"}, {"type": "text", "text": "o"}]},
            ]
        },
        Conversation(
            (
                Message(
                    "user",
                    (
                        "Is ",
                        ImagePart("http://host/a.png"),
                        " like ",
                        *(ImagePart(f"{name}.png") for name in "bcd"),
                        "?",
                    ),
                ),
                Message("assistant", "No"),
            )
        ),
    ),
    "a verdict on messages": ("kto", {"messages": TURNS, "label": False}, Judged(Conversation((ASKED, FIVE)), False)),
    "a verdict on a completion": (
        "kto",
        {"prompt": "2 + 3 =", "completion": " 5", "label": True},
        Judged(Prompted("2 + 3 =", " 5"), True),
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


def test_messages_are_read_as_a_prompt_where_that_is_asked_for() -> None:
    assert READERS["prompt"].read({"messages": TURNS[:1], "tools": [TOOL]}) == Prompt((ASKED,), (TOOL,))
    assert not READERS["prompt"].recognises({"messages": TURNS[:1]})


@pytest.mark.parametrize(
    "other", ["completion", "chosen", "rejected", "output", "label", "messages", "conversations", "instruction"]
)
def test_what_is_answered_is_no_prompt(other: str) -> None:
    assert not READERS["prompt"].recognises({"prompt": "x", other: "y"})


def test_every_form_has_an_example() -> None:
    assert {form for form, _, _ in GOOD.values()} == set(READERS)


MARKS = {
    "text_only": {"text"},
    "text2text": {"input", "output"},
    "prompt_completion": {"prompt", "completion"},
    "float_only": {"value"},
    "alpaca": {"instruction", "output"},
    "sharegpt": {"conversations"},
    "messages": {"messages"},
    "conversation": {"messages"},
    "paired_text_to_text": {"prompt", "chosen", "rejected"},
    "preference": {"chosen", "rejected"},
    "kto": {"label"},
}
NEVER_BOTH = ({"alpaca", "text2text"}, {"conversation", "messages"}, {"paired_text_to_text", "preference"})
FIELDS = (*sorted(set().union(*MARKS.values())), "system")


def test_forms_overlap_only_where_a_row_holds_the_marks_of_both() -> None:
    for size in range(1, len(FIELDS) + 1):
        for fields in itertools.combinations(FIELDS, size):
            claiming = {name for name, reader in READERS.items() if reader.recognises(dict.fromkeys(fields))}
            if len(claiming) > 1:
                assert all(MARKS[name] <= set(fields) for name in claiming), fields
                assert not {"text_only", "float_only"} & claiming, fields
                assert not any(pair <= claiming for pair in NEVER_BOTH), fields


def test_what_looks_like_another_form_is_not_taken_for_it() -> None:
    """Choices want a benchmark, a message of a tree its neighbours, and two texts a prompt."""
    rows: list[dict[str, Any]] = [
        {"question": "Which?", "choices": ["a", "b"], "answer": "a"},
        {"question": "Which?", "choices": ["a", "b"], "answer": 0},
        {"message_id": "2", "parent_id": "1", "text": "Blue.", "role": "assistant"},
        {"chosen": "Blue.", "rejected": "Seven."},
    ]
    for row in rows:
        assert [name for name, reader in READERS.items() if reader.recognises(row)] == []


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "answer empty": ("question_answer", {"question": "x", "answer": ""}, "the field 'answer' is empty"),
    "response missing": (
        "instruction_response",
        {"instruction": "x"},
        "the field 'response' is missing; the row has 'instruction'",
    ),
    "context a number": (
        "instruction_response",
        {"instruction": "x", "context": 4, "response": "y"},
        "the field 'context' must be text, not a number",
    ),
    "a question with one answer": (
        "question_pair",
        {"question": "Why?", "response_j": "So."},
        "the field 'response_k' is missing; the row has 'question', 'response_j'",
    ),
    "a dialogue without speakers": (
        "dialogue_pair",
        {"chosen": "Blue.", "rejected": "Seven."},
        "the field 'chosen' must begin with 'Human:' or 'Assistant:'",
    ),
    "a dialogue with an empty turn": (
        "dialogue_pair",
        {"chosen": "\n\nHuman: Hi\n\nAssistant:", "rejected": "\n\nHuman: Hi\n\nAssistant: Ho"},
        "the field 'chosen' holds an empty turn",
    ),
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
    "a turn without text": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": ""}]},
        "message 1 of 'conversations': the field 'value' is empty",
    ),
    "a turn from a stranger": (
        "sharegpt",
        {"conversations": [{"from": "bot", "value": "x"}]},
        "message 1 of 'conversations': unknown role 'bot'; "
        "roles are system, human, user, gpt, assistant, function_call, observation, tool",
    ),
    "a call that is no JSON": (
        "sharegpt",
        {"conversations": [{"from": "function_call", "value": "add(2, 3)"}]},
        "message 1 of 'conversations': a function call must be JSON, and the text 'add(2, 3)' is not",
    ),
    "tools without a name": (
        "sharegpt",
        {"conversations": [], "tools": [{"description": "x"}]},
        "the field 'name' is missing; the row has 'description'",
    ),
    "arguments that are no object": (
        "messages",
        {"messages": [{"role": "assistant", "tool_calls": [{"name": "add", "arguments": "3"}]}]},
        "message 1 of 'messages': the field 'arguments' must be an object, not a number",
    ),
    "a message with an image": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "message 1 of 'messages': an image in 'content' has no path and no address: "
        "give one as 'image', 'path' or 'url'",
    ),
    "a message with a sound": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        "message 1 of 'messages': a part of 'content' has the type 'audio'; it must be text, image or image_url",
    ),
    "a prompt that is empty": ("prompt", {"prompt": " "}, "the field 'prompt' is empty"),
    "a prompt that is a number": ("prompt", {"prompt": 5}, "the field 'prompt' must be text, not a number"),
    "a prompt that is missing": (
        "prompt",
        {"text": "x"},
        "the field 'prompt' is missing; the row has 'text'",
    ),
    "a weight between": (
        "messages",
        {"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]},
        "message 1 of 'messages': the field 'weight' must be 0 or 1, not 0.5",
    ),
    "train no truth value": (
        "messages",
        {"messages": [{"role": "assistant", "content": "x", "train": "no"}]},
        "message 1 of 'messages': the field 'train' must be true or false, not text",
    ),
    "completion missing": (
        "prompt_completion",
        {"prompt": "x"},
        "the field 'completion' is missing; the row has 'prompt'",
    ),
    "answers of numbers": ("text_to_textlist", {"input": "x", "output": [1]}, "the field 'output' must hold texts"),
    "an answer without a score": (
        "text_to_scored_textlist",
        {"input": "x", "output": [{"text": "a"}]},
        "the field 'score' is missing; the row has 'text'",
    ),
    "a value that is text": ("float_only", {"value": "1"}, "the field 'value' must be a number, not text"),
    "no images": (
        "image_text",
        {"images": [], "text": "x"},
        "the row has no images: give their paths or addresses in 'images'",
    ),
    "chosen no conversation": (
        "paired_conversation",
        {"chosen": {"messages": TURNS}, "rejected": {"messages": []}, "margin": "x"},
        "the field 'margin' must be a number, not text",
    ),
    "chosen text missing": (
        "paired_text_to_text",
        {"prompt": "x", "rejected": "y"},
        "the field 'chosen' is missing; the row has 'prompt', 'rejected'",
    ),
    "an answer from a stranger": (
        "preference",
        {"conversations": [], "chosen": {"from": "bot", "value": "x"}, "rejected": {"from": "gpt", "value": "y"}},
        "'chosen': unknown role 'bot'; roles are system, human, user, gpt, assistant, function_call, observation, tool",
    ),
    "a verdict in words": (
        "kto",
        {"messages": TURNS, "label": "good"},
        "the field 'label' must be true or false, not text",
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
    "a message from a stranger": (
        "messages",
        {"messages": [{"role": "gpt", "content": "x"}]},
        "message 1 of 'messages': unknown role 'gpt'; "
        "roles are system, developer, user, assistant, tool, function, observation",
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
