"""Messages as clients write them, to those that a template renders."""

from __future__ import annotations

from typing import Any

import pytest

from lmflow_core.api import Message, ToolCall
from lmflow_serve.errors import ApiError
from lmflow_serve.messages import read_message

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": [2]}'}}


def test_calls_and_results_of_tools_are_kept() -> None:
    calling = read_message({"role": "assistant", "content": None, "tool_calls": [CALL]}, "messages[0]")
    assert calling == Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1, "b": [2]}),))
    result = read_message({"role": "tool", "tool_call_id": "call_1", "content": "3"}, "messages[1]")
    assert result == Message("tool", "3")


def test_fields_that_are_empty_are_taken() -> None:
    given = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "tool_calls": None, "name": ""}
    assert read_message(given, "messages[0]") == Message("assistant", "hi")
    assert read_message({"role": "user", "content": ""}, "messages[0]") == Message("user", "")
    assert read_message({"role": "user", "content": []}, "messages[0]") == Message("user", "")


@pytest.mark.parametrize(
    "call",
    [
        "add",
        {},
        {"function": "add"},
        {"function": {"name": "add"}},
        {"function": {"name": "add", "arguments": {"a": 1}}},
        {"function": {"name": "add", "arguments": "[1]"}},
        {"function": {"name": "add", "arguments": "{"}},
        {"function": {"name": 7, "arguments": "{}"}},
        {"function": {"name": "add", "arguments": '{"a": "\\ud800"}'}},
        {"function": {"name": "add", "arguments": "[" * 100_000}},
        {"function": {"name": "add", "arguments": '{"a": NaN}'}},
        {"function": {"name": "add", "arguments": '{"a": 1, "a": 2}'}},
    ],
)
def test_a_call_that_is_none_is_refused(call: Any) -> None:
    with pytest.raises(ApiError, match=r"^messages\[2\]\.tool_calls must hold"):
        read_message({"role": "assistant", "content": "", "tool_calls": [call]}, "messages[2]")
