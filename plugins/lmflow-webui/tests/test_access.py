"""Who gets what from the page's server: pages of other sites nothing, and nobody the files of this machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lmflow_webui.command import make_app
from lmflow_webui.conversations import WebChat
from lmflow_webui.options import WebuiOptions


def _open_model(**_: object) -> Any:
    name = "<img src=x onerror=alert(1)>"
    blind = SimpleNamespace(media=None)
    return SimpleNamespace(name=name, decoder_name="none", parameters=list, opening=list, model=blind)


_open_model.names = lambda kind: ["</script><script>alert(1)</script>"]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return make_app(WebChat(_open_model), local=True)  # type: ignore[arg-type]


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:7860")


def test_it_is_for_this_machine_by_default() -> None:
    assert WebuiOptions().host == "127.0.0.1"


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"])
@pytest.mark.parametrize(
    "header",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:7860"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "0.0.0.0:7860"},
        {"Host": ""},
        {"Host": "["},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1@evil.example"},
    ],
)
def test_pages_of_others_are_kept_out(client: TestClient, path: str, header: dict[str, str]) -> None:
    assert client.get(path, headers=header).status_code == 403
    posted = client.post("/gradio_api/queue/join", json={}, headers=header)
    assert posted.status_code == 403
    assert "access-control-allow-origin" not in posted.headers


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"])
def test_this_machine_is_let_in_by_any_of_its_names(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy


def test_other_machines_are_let_in_when_asked() -> None:
    app = make_app(WebChat(_open_model), local=False)  # type: ignore[arg-type]
    assert TestClient(app, base_url="http://box.example").get("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file={}", "/file={}", "/gradio_api/file/{}", "/assets/../../../../../../..{}", "/static/..{}"),
        *("/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{}", "/svelte/../../../../../../../..{}", "/..{}"),
        *("/gradio_api/custom_component/x/client/component/..{}", "/gradio_api/file=https://evil.example{}"),
        *("/gradio_api/proxy=http://evil.example{}", "/assets/%2fetc%2fpasswd", "/gradio_api/file=..{}"),
        *("/gradio_api/stream/x/y/z/playlist-file?path={}", "/theme.css/..{}", "/gradio_api/file=file://{}"),
    ],
)
def test_files_of_the_machine_stay_there(client: TestClient, tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody may read this", encoding="utf-8")
    answer = client.get(path.format(secret), follow_redirects=False)
    assert answer.status_code >= 400
    assert "nobody may read this" not in answer.text


def test_nobody_leaves_files(client: TestClient) -> None:
    answer = client.post("/gradio_api/upload", files={"files": ("a.html", b"<script>alert(1)</script>" * 100)})
    assert answer.status_code == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_long_is_refused(client: TestClient, chunked: bool) -> None:
    body: Any = iter([b"x" * 100]) if chunked else b"x" * 1_000_001
    assert client.post("/gradio_api/queue/join", content=body).status_code == 413


@pytest.mark.parametrize(("length", "refused"), [(21_000_000, False), (21_000_001, True)])
def test_a_model_that_sees_is_sent_images(length: int, refused: bool) -> None:
    def open_model(**names: object) -> Any:
        model = _open_model(**names)
        model.model.media = object()
        return model

    open_model.names = _open_model.names  # type: ignore[attr-defined]
    client = TestClient(make_app(WebChat(open_model), local=True), base_url="http://127.0.0.1:7860")  # type: ignore[arg-type]
    told = client.post("/gradio_api/queue/join", content=b"{}", headers={"Content-Length": str(length)})
    assert (told.status_code == 413) is refused


def test_names_of_models_are_no_html(client: TestClient) -> None:
    page = client.get("/").text
    assert "<img src=x" not in page
    assert "<script>alert(1)</script>" not in page


def test_visitors_that_came_first_make_way() -> None:
    chat = WebChat(_open_model)  # type: ignore[arg-type]
    first = chat.conversation("first")
    for number in range(1000):
        chat.conversation(str(number))
    last = chat.conversation("last")
    assert chat.conversation("first") is not first
    assert chat.conversation("last") is last
