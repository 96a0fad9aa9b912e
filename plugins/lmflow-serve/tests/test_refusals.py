"""Requests that are refused: the status, and the error in the form that OpenAI's clients know."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest

Serving = Callable[..., Any]
HI = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"


def _post(server: Any, body: bytes | str, path: str = CHAT, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    error: dict[str, Any] = json.loads(response.read())["error"]
    connection.close()
    assert set(error) == {"message", "type", "param", "code"}
    return response.status, error


def _refused(server: Any, **fields: Any) -> tuple[int, dict[str, Any]]:
    return _post(server, json.dumps({"model": "parrot", "messages": HI, **fields}))


@pytest.mark.parametrize(
    "body",
    [
        *("", "{", "[]", '"text"', "nothing", '{"model": NaN}', '{"messages": Infinity}', "[" * 100_000),
        *(
            '{"seed": ' + "9" * 5000 + "}",
            b"\xff\xfe{}",
            b'{"model": "\xe9"}',
            '{"model": "\\ud800"}',
            '{"\\udfff": 1}',
            '{"model": "parrot", "model": "parrot"}',
            '{"metadata": ' + "[" * 64 + "]" * 64 + "}",
        ),
    ],
)
def test_a_body_that_is_no_json_object(parrot: Any, body: bytes | str) -> None:
    status, error = _post(parrot, body)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"].startswith("the body of the request")


@pytest.mark.parametrize(
    ("fields", "param", "code", "message"),
    [
        ({"messages": None}, "messages", "missing_required_parameter", "missing required parameter: 'messages'"),
        ({"model": None}, "model", "missing_required_parameter", "missing required parameter: 'model'"),
        ({"messages": []}, "messages", None, "'messages' is empty"),
        ({"messages": "hi"}, "messages", "invalid_type", "'messages' must be an array"),
        ({"messages": ["hi"]}, "messages", None, "messages[0] must be an object"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages", None, "messages[0].role must be one of"),
        ({"messages": [{"role": "user"}]}, "messages", None, "messages[0].content is missing"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", None, "messages[0].content is missing"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "messages",
            None,
            "messages[0].content must be a string or an",
        ),
        ({"messages": [*HI, *HI]}, "messages", None, "turn 2 comes from 'user' where 'assistant' is due"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages",
            None,
            "messages[0].content[0]: the image 'x' is refused",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/x"}}]}]},
            "messages",
            None,
            "messages[0].content[0] is an image, and this model takes text only",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
            "messages",
            None,
            "messages[0].content[0] must be",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "name": "Ann"}]},
            "messages",
            "unsupported_parameter",
            "messages[0].name is not supported",
        ),
        ({"max_tokens": 0}, "max_tokens", None, "'max_tokens' must be at least 1"),
        ({"max_tokens": "9"}, "max_tokens", "invalid_type", "'max_tokens' must be a whole number"),
        ({"max_tokens": True}, "max_tokens", "invalid_type", "'max_tokens' must be a whole number"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "'temperature' must be a number"),
        ({"temperature": -1}, "temperature", None, "temperature: -1.0 is below the smallest value allowed, 0"),
        ({"top_p": 0.5}, "top_p", None, "top_p: the decoder 'parrot' has no such option"),
        ({"stream": "yes"}, "stream", "invalid_type", "'stream' must be true or false"),
        ({"stream_options": {}}, "stream_options", None, "'stream_options' needs 'stream' to be true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options", None, "may hold 'include_usage'"),
        ({"stop": ["a", ""]}, "stop", None, "'stop' must be up to 16 strings of 1 to 1000"),
        ({"stop": "x" * 1001}, "stop", None, "'stop' must be up to 16 strings of 1 to 1000 characters"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 50_000]}}}},
            "response_format",
            None,
            "the schema in 'response_format' is longer than 50000 bytes",
        ),
        ({"stop": 7}, "stop", "invalid_type", "'stop' must be a string or an array"),
        ({"stop": ["x"] * 17}, "stop", None, "'stop' must be up to 16 strings"),
        ({"seed": 1.5}, "seed", "invalid_type", "'seed' must be a whole number"),
        ({"top_logprobs": 2}, "top_logprobs", None, "'top_logprobs' needs 'logprobs' to be true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", None, "'top_logprobs' must be from 0 to 20"),
        ({"n": 0}, "n", None, "'n' must be from 1 to 128"),
        ({"best_of": 2}, "best_of", "unsupported_parameter", "'best_of' is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter", "is not supported"),
        ({"frequency_penalty": 1}, "frequency_penalty", "unsupported_parameter", "is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias", None, "the decoder 'parrot' has no such option"),
        ({"logit_bias": {"x": 1}}, "logit_bias", None, "'logit_bias' must be an object of numbers from -100 to 100"),
        ({"logit_bias": {"5": "1"}}, "logit_bias", None, "'logit_bias' must be an object of numbers"),
        ({"response_format": {"type": "json_object"}}, "response_format", None, "has no such option"),
        ({"response_format": {"type": "xml"}}, "response_format", None, "'response_format' must be"),
        ({"response_format": {"type": "json_schema"}}, "response_format", None, "'response_format' must be"),
        ({"tools": [{"type": "function"}]}, "tools", None, "tools[0] must be"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter", "is not supported"),
        ({"warmth": 3}, "warmth", "unknown_parameter", "unknown parameter: 'warmth'"),
    ],
)
def test_a_field_that_is_wrong(parrot: Any, fields: dict[str, Any], param: str, code: str | None, message: str) -> None:
    status, error = _refused(parrot, **fields)
    assert (status, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", param, code)
    assert message in error["message"]
    assert parrot.model.prompts == []


@pytest.mark.parametrize("prompt", [[1, 2], [[1, 2]], ["a", "b"], [], ""])
def test_a_prompt_that_is_not_one_text(parrot: Any, prompt: Any) -> None:
    status, error = _post(parrot, json.dumps({"model": "parrot", "prompt": prompt}), "/v1/completions")
    assert (status, error["param"]) == (400, "prompt")


def test_an_unknown_model(parrot: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        parrot.client().chat.completions.create(model="gpt-9", messages=HI)
    assert caught.value.code == "model_not_found"
    assert "'gpt-9' does not exist; this server has 'parrot'" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        parrot.client().models.retrieve("gpt-9")


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 5}, {"stream": True}])
def test_a_prompt_that_is_too_long(parrot: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        parrot.ask("y" * 197, **fields)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert "the prompt has 200 tokens and the context of the model holds 200" in caught.value.message


def test_an_answer_ends_where_the_context_does(parrot: Any) -> None:
    assert parrot.ask("hi", max_tokens=1000).choices[0].message.content == "hi"
    for fields in ({}, {"max_tokens": 1000}):
        (choice,) = parrot.ask("y" * 187, **fields).choices
        assert (choice.message.content, choice.finish_reason) == ("y" * 10, "length")
    (choice,) = parrot.ask("y" * 196).choices
    assert (choice.message.content, choice.finish_reason) == ("y", "length")


def test_more_tokens_than_the_server_gives(serving: Serving) -> None:
    server = serving(max_request_tokens=4)
    assert server.ask("a long answer").choices[0].message.content == "a lo"
    with pytest.raises(openai.BadRequestError) as caught:
        server.ask("hi", max_completion_tokens=5)
    assert caught.value.param == "max_completion_tokens"
    assert "may be at most 4" in caught.value.message


def test_a_key_is_asked_for(serving: Serving) -> None:
    accented = {"Authorization": b"Bearer s\xc3\xa9cret".decode("latin-1")}
    assert _post(serving(key="sécret"), "no JSON", **accented)[0] == 400
    server = serving(key="secret")
    assert server.client("secret").models.list().data[0].id == "parrot"
    for wrong in ("none", "secre", "secret2", "sécret"):
        status, error = _post(server, "{}", Authorization=f"Bearer {wrong}".encode().decode("latin-1"))
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert error["message"] == "the API key is wrong"
    with pytest.raises(openai.AuthenticationError) as caught:
        server.client("wrong").chat.completions.create(model="parrot", messages=HI)
    assert caught.value.code == "invalid_api_key"
    for header in ({}, {"Authorization": "secret"}, {"Authorization": "Basic secret"}, {"Authorization": "Bearer "}):
        status, error = _post(server, "not even json", **header)
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert error["message"].startswith("no API key is given")


def test_web_pages_of_others_are_kept_out(parrot: Any) -> None:
    status, error = _post(parrot, json.dumps({"model": "parrot", "messages": HI}), Host="evil.example")
    assert (status, error["message"]) == (403, "without an API key, this server answers to localhost only")
    body = json.dumps({"model": "parrot", "messages": HI})
    for origin in ("http://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1@evil.example"):
        assert _post(parrot, body, Origin=origin)[0] == 403
    assert _post(parrot, "no JSON", Origin="http://localhost:3000")[0] == 400
    assert _post(parrot, body, **{"Content-Type": "text/plain"})[0] == 415
    assert parrot.model.prompts == []


@pytest.mark.parametrize(
    "head",
    [
        "nonsense\r\n\r\n",
        f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {'a' * 20_000}",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http(parrot: Any, head: str) -> None:
    with socket.create_connection(("127.0.0.1", parrot.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 400 ")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith("this is no HTTP/1.1 request")


def test_nobody_is_sent_elsewhere(parrot: Any) -> None:
    assert _post(parrot, "{}", f"{CHAT}/", Host="localhost:1")[0] == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long(serving: Serving, chunked: bool) -> None:
    server = serving(max_body_bytes=1000)
    body: Any = b" " * 1001
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", CHAT, iter([body]) if chunked else body, headers, encode_chunked=chunked)
    response = connection.getresponse()
    assert response.status == 413
    assert "longer than 1000 bytes" in json.loads(response.read())["error"]["message"]
    assert server.ask("hi").choices[0].message.content == "hi"


def test_a_body_that_does_not_come(serving: Serving) -> None:
    server = serving(client_timeout=0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as half:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        half.sendall(head.encode() + b'{"model": ')
        answer = b"".join(iter(lambda: half.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 0.3 s" in answer


def test_an_unknown_address_and_method(parrot: Any) -> None:
    status, error = _post(parrot, "{}", "/v1/embeddings")
    assert (status, error["code"]) == (404, "unknown_url")
    assert error["message"] == "there is no POST /v1/embeddings here"
    assert _post(parrot, "{}", "/v1/models")[0] == 405
