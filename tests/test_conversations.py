"""What is trained on, decided in one place, and the order of turns with calls of tools."""

from __future__ import annotations

import pytest

from lmflow_core.contracts.examples import (
    Conversation,
    Example,
    ImagePart,
    Judged,
    Message,
    Preference,
    Prompt,
    Prompted,
    Text,
    ToolCall,
    as_turns,
    check_prompt,
    check_trainable,
    check_turns,
    has_conversation,
    is_trained,
    with_training,
)

SYSTEM, USER, ASSISTANT = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
CALL = Message("assistant", "", tool_calls=(ToolCall("add", {"a": 2}),))
RESULT = Message("tool", "5")
UNTRAINED = Message("assistant", "no", train=False)


def _trained(messages: tuple[Message, ...], policy: str) -> list[int]:
    marked = with_training(messages, policy)
    assert all(message.train in (True, False) for message in marked)
    assert [message.content for message in marked] == [message.content for message in messages]
    return [at for at, message in enumerate(marked) if is_trained(message)]


LONG = (SYSTEM, USER, CALL, RESULT, ASSISTANT, USER, ASSISTANT)


@pytest.mark.parametrize(
    ("policy", "trained"), [("assistant", [2, 4, 6]), ("last", [6]), ("all", [1, 2, 4, 5, 6])], ids=lambda v: str(v)
)
def test_what_each_policy_trains(policy: str, trained: list[int]) -> None:
    assert _trained(LONG, policy) == trained


@pytest.mark.parametrize(("policy", "trained"), [("assistant", [1]), ("last", []), ("all", [0, 1, 2])])
def test_a_turn_that_says_no_is_never_trained(policy: str, trained: list[int]) -> None:
    assert _trained((USER, ASSISTANT, USER, UNTRAINED), policy) == trained


def test_saying_yes_does_not_outvote_the_policy() -> None:
    yes = [Message(role, "x", train=True) for role in ("system", "user", "assistant", "user", "assistant")]
    assert _trained((*yes, Message("tool", "t", train=True)), "last") == [4]
    assert _trained((*yes, Message("tool", "t", train=True)), "all") == [1, 2, 3, 4]


def test_a_question_that_says_no_is_not_trained() -> None:
    assert _trained((Message("user", "u", train=False), ASSISTANT), "all") == [1]


def test_an_unknown_policy() -> None:
    with pytest.raises(ValueError, match=r"^unknown policy 'first'; it must be one of assistant, last, all$"):
        with_training((USER,), "first")


def test_where_nothing_is_said_the_assistants_turns_train() -> None:
    assert [is_trained(message) for message in (SYSTEM, USER, ASSISTANT, RESULT, UNTRAINED)] == [
        False, False, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "messages",
    [
        LONG,
        (USER, CALL, RESULT, RESULT, CALL, RESULT, ASSISTANT),
        (USER, CALL),
        (USER, CALL, USER),
        (USER, CALL, RESULT),
    ],
)
def test_calls_and_their_results_have_their_place(messages: tuple[Message, ...]) -> None:
    check_turns(messages)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((USER, ASSISTANT, RESULT), "turn 3 comes from 'tool' where 'user' is due"),
        ((USER, RESULT), "turn 2 comes from 'tool' where 'assistant' is due"),
        ((USER, CALL, ASSISTANT), "turn 3 comes from 'assistant' where 'user' or 'tool' is due"),
        ((USER, CALL, RESULT, USER), "turn 4 comes from 'user' where 'assistant' or 'tool' is due"),
        ((USER, SYSTEM), "turn 2 comes from 'system' where 'assistant' is due"),
    ],
)
def test_turns_that_have_no_place(messages: tuple[Message, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}; after an optional system message"):
        check_turns(messages)


def test_what_is_trained_on_ends_with_the_assistant() -> None:
    check_trainable((USER, CALL))
    for last in ("tool", "user"):
        with pytest.raises(ValueError, match=f"^the conversation ends with a {last} message"):
            check_trainable((USER, CALL, RESULT) if last == "tool" else (USER,))


def test_a_prompt_ends_where_an_answer_is_due() -> None:
    check_prompt((SYSTEM, USER, ASSISTANT, USER))
    check_prompt((USER, CALL, RESULT))
    for last in (ASSISTANT, CALL):
        with pytest.raises(
            ValueError, match=r"^the prompt ends with a message of the assistant; the last message must"
        ):
            check_prompt((USER, last))
    with pytest.raises(ValueError, match=r"^turn 2 comes from 'user' where 'assistant' is due"):
        check_prompt((USER, USER))
    with pytest.raises(ValueError, match=r"^the conversation is empty"):
        check_prompt((SYSTEM,))


CHAT = Conversation((USER, ASSISTANT))


@pytest.mark.parametrize(
    ("example", "needed"),
    [
        (Text("x"), False),
        (CHAT, True),
        (Prompt((USER,)), True),
        (Preference(CHAT, CHAT), True),
        (Judged(CHAT, True), True),
        (Preference(Prompted("p", "a"), Prompted("p", "b")), False),
    ],
)
def test_who_needs_a_template(example: Example, needed: bool) -> None:
    assert has_conversation(example) is needed


def test_parts_of_a_content_as_chat_templates_take_them() -> None:
    shown = Message("user", ("Is ", ImagePart("a.png"), " it?"))
    assert (shown.text, shown.parts) == ("Is  it?", shown.content)
    assert (USER.text, USER.parts) == ("u", ("u",))
    [turn, plain] = as_turns([shown, Message("assistant", ("y", "es"))])
    assert turn["content"] == [
        {"type": "text", "text": "Is "},
        {"type": "image", "image": "a.png"},
        {"type": "text", "text": " it?"},
    ]
    assert plain["content"] == "yes"
