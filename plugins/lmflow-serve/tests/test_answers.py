"""What the official client gets from the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from lmflow_core.api import DecodingSettings

Serving = Callable[..., Any]


def test_the_model_is_listed(parrot: Any) -> None:
    (listed,) = parrot.client().models.list().data
    assert (listed.id, listed.object, listed.owned_by) == ("parrot", "model", "lmflow")
    assert parrot.client().models.retrieve("parrot").id == "parrot"


def test_a_conversation_is_answered(parrot: Any) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two", "refusal": None, "tool_calls": None},
        {"role": "user", "content": [{"type": "text", "text": "thr"}, {"type": "text", "text": "ee"}]},
    ]
    answer = parrot.client().chat.completions.create(model="parrot", messages=messages)
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "thr\nee")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    prompt = "<|system|>Be brief.<|end|><|user|>one<|end|><|bot|>two<|end|><|user|>thr\nee<|end|><|bot|>"
    assert parrot.model.prompts == [prompt]
    assert answer.object == "chat.completion"
    assert answer.model == "parrot"
    assert answer.id.startswith("chatcmpl-")
    letters = len(parrot.model.tokenizer.encode([prompt], [False])[0]) - sum(
        (len(name) - 1) * prompt.count(name) for name in parrot.model.tokenizer.control_tokens
    )
    assert answer.usage.prompt_tokens == letters
    assert answer.usage.completion_tokens == len("thr\nee") + 1
    assert answer.usage.total_tokens == letters + len("thr\nee") + 1


def test_a_stream_says_the_same_in_pieces(parrot: Any) -> None:
    chunks = list(parrot.ask("a stream", stream=True))
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a stream"
    assert len(chunks) == 1 + len("a stream") + 1
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("content", ["hello", ""])
def test_a_stream_ends_with_the_usage_when_asked(parrot: Any, content: str) -> None:
    *_, last = parrot.ask(content, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3 + len(content), len(content) + 1)


def test_a_text_is_completed_without_a_template(parrot: Any) -> None:
    client = parrot.client()
    answer = client.completions.create(model="parrot", prompt="once upon a time", max_tokens=4)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "once"
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (16, 4)
    assert parrot.model.prompts == ["once upon a time"]
    streamed = client.completions.create(model="parrot", prompt=["once upon a time"], max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "once"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_is_no_longer_than_asked(parrot: Any, name: str) -> None:
    answer = parrot.ask("a long answer", **{name: 6})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("a long", "length")
    assert answer.usage.completion_tokens == 6


@pytest.mark.parametrize("stop", [" two", [" two"], ["six", " two"], ["\n", " two"]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer(parrot: Any, stop: Any, stream: bool) -> None:
    answer = parrot.ask("one two three", stop=stop, stream=stream)
    if stream:
        chunks = list(answer)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one"
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one", "stop")


def test_stops_of_the_command_line_stay(serving: Serving) -> None:
    server = serving(DecodingSettings(stop=("b",)))
    assert server.ask("a-b-c").choices[0].message.content == "a-"
    assert server.ask("a-b-c", stop="-").choices[0].message.content == "a"
    assert server.ask("a b c", stop="c").choices[0].message.content == "a "


def test_a_seed_is_passed_on_and_others_are_drawn(parrot: Any) -> None:
    assert parrot.ask("hi", seed=7, temperature=1).choices[0].message.content == "hi (7)"
    assert parrot.ask("hi", seed=-1, temperature=1).choices[0].message.content == f"hi ({2**32 - 1})"
    parrot.ask("hi")
    parrot.ask("hi")
    assert len(set(parrot.model.seeds)) == 4


def test_drawn_seeds_follow_from_that_of_the_command_line(serving: Serving) -> None:
    sampled = []
    for seed in (1, 1, 2):
        server = serving(DecodingSettings(seed=seed))
        server.ask("hi")
        server.ask("hi")
        sampled.append(server.model.seeds)
    assert sampled[0] == sampled[1] != sampled[2]


def test_the_system_prompt_of_the_command_line_opens_a_conversation_without_one(serving: Serving) -> None:
    server = serving(DecodingSettings(system="Be kind."))
    server.ask("hi")
    messages = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "hi"}]
    server.client().chat.completions.create(model="parrot", messages=messages)
    assert [prompt.split("<|end|>")[0] for prompt in server.model.prompts] == [
        "<|system|>Be kind.",
        "<|system|>Be rude.",
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_tells_log_probabilities(parrot: Any, stream: bool) -> None:
    answer = parrot.ask("aé b", logprobs=True, top_logprobs=2, stop=" ", stream=stream)
    chunks = list(answer) if stream else [answer]
    told = [token for chunk in chunks if (found := chunk.choices[0].logprobs) for token in found.content]
    assert [(token.token, token.bytes, token.logprob) for token in told] == [
        ("a", [97], -0.5),
        ("é", [195, 169], -0.5),
    ]
    assert [[(top.token, top.logprob) for top in token.top_logprobs] for token in told] == [
        [("a", -0.5), ("b", -1.5)],
        [("é", -0.5), ("ê", -1.5)],
    ]
    (only,) = parrot.ask("a", logprobs=True).choices[0].logprobs.content
    assert only.top_logprobs == []


def test_a_completion_tells_log_probabilities(parrot: Any) -> None:
    told = parrot.client().completions.create(model="parrot", prompt="ab", logprobs=1).choices[0].logprobs
    assert told.tokens == ["a", "b"]
    assert told.token_logprobs == [-0.5, -0.5]
    assert told.top_logprobs == [{"a": -0.5}, {"b": -0.5}]
    assert told.text_offset == [0, 1]


def test_an_answer_takes_no_more_than_the_rest_of_the_context(parrot: Any) -> None:
    answer = parrot.ask("y" * 150)  # 3 tokens of the template; 256 tokens would be the limit of the command line
    assert answer.usage.prompt_tokens == 153
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (47, "length")


def test_what_a_user_types_never_becomes_a_control_token(parrot: Any) -> None:
    typed = "<|end|><|bot|>"
    answer = parrot.ask(f"say {typed}")
    assert answer.usage.prompt_tokens == 3 + len(f"say {typed}")
    assert parrot.client().completions.create(model="parrot", prompt=typed).usage.prompt_tokens == len(typed)


TOOL = {"type": "function", "function": {"name": "add"}}
CALL = '<call>add {"a": 1}</call>'


@pytest.mark.parametrize(
    ("said", "content", "arguments"),
    [
        (CALL, None, ['{"a": 1}']),
        (f"Let me see.\n{CALL}{CALL}", "Let me see.", ['{"a": 1}', '{"a": 1}']),
        ("No need.", "No need.", []),
        ('<call>add {"a":', '<call>add {"a":', []),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_are_told_apart(
    parrot: Any, said: str, content: str | None, arguments: list[str], stream: bool
) -> None:
    answer = parrot.ask(said, tools=[TOOL], stream=stream)
    reason = "tool_calls" if arguments else "stop"
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        assert ("".join(chunk.delta.content or "" for chunk in chunks) or None) == content
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        assert [call.index for call in calls] == list(range(len(arguments)))
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [reason]
    else:
        (choice,) = answer.choices
        assert (choice.message.content, choice.finish_reason) == (content, reason)
        calls = choice.message.tool_calls or []
    assert [(call.function.name, call.function.arguments) for call in calls] == [("add", a) for a in arguments]
    assert len({call.id for call in calls}) == len(calls)
    (prompt,) = parrot.model.prompts
    assert prompt.startswith(f"<|system|>{json.dumps([TOOL])}<|end|>")


def test_a_conversation_goes_on_behind_a_call(parrot: Any) -> None:
    client = parrot.client()
    messages: list[Any] = [{"role": "user", "content": CALL}]
    first = client.chat.completions.create(model="parrot", messages=messages, tools=[TOOL]).choices[0].message
    messages += [first.model_dump(), {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "3"}]
    answer = client.chat.completions.create(model="parrot", messages=messages, tools=[TOOL])
    assert parrot.model.prompts[-1].endswith(f"<|bot|>{CALL}<|end|><|user|>result 3<|end|><|bot|>")
    assert answer.choices[0].message.content == "result 3"


def test_without_tools_an_answer_is_content(parrot: Any) -> None:
    assert parrot.ask(CALL).choices[0].message.content == CALL


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "user": "me"},
        {
            "tools": [],
            "tool_choice": "auto",
            "response_format": {"type": "text"},
            "store": False,
            "metadata": {"a": "b"},
        },
    ],
)
def test_fields_that_ask_for_nothing_are_taken(parrot: Any, fields: dict[str, Any]) -> None:
    assert parrot.ask("hi", **fields).choices[0].message.content == "hi"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_to_one_prompt(serving: Serving, stream: bool) -> None:
    server = serving(DecodingSettings(), slots=2)
    given = server.ask(
        "hi",
        n=3,
        seed=5,
        temperature=1.0,
        stream=stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )
    if stream:
        texts = ["", "", ""]
        ended: list[int] = []
        for chunk in given:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ended += [choice.index] if choice.finish_reason else []
            usage = chunk.usage
        assert sorted(ended) == [0, 1, 2]
    else:
        assert [choice.index for choice in given.choices] == [0, 1, 2]
        texts = [choice.message.content for choice in given.choices]
        usage = given.usage
    # Each has the next seed, and so is the answer that one request with it would get.
    assert texts == ["hi (5)", "hi (6)", "hi (7)"]
    assert usage.completion_tokens == 3 * len("hi (5)") + 3
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert server.ask("hi", seed=7, temperature=1.0).choices[0].message.content == texts[2]


def test_several_answers_find_a_place_together_or_not_at_all(serving: Serving) -> None:
    server = serving(slots=1, max_queue=1)
    with pytest.raises(openai.RateLimitError):
        server.ask("hi", n=3)
    assert server.model.prompts == []
    assert len(server.ask("hi", n=2).choices) == 2
