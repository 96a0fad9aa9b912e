"""Who may reach the page, and what it makes of texts. Talking is tested with models, in ``tests/integration``."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from lmflow_core.api import OptionError, RequestError
from lmflow_core.options import build
from lmflow_webui.command import webui
from lmflow_webui.conversations import View
from lmflow_webui.options import WebuiOptions
from lmflow_webui.page import _shown


def _never(**_: Any) -> Any:
    raise AssertionError("no model may be opened")


def test_other_machines_are_let_in_only_when_asked() -> None:
    with pytest.raises(RequestError, match=r"--host 0\.0\.0\.0 lets other machines in: add --allow-anyone"):
        webui(_never, WebuiOptions(host="0.0.0.0"))  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_told_before_a_model_is_opened() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen on 127.0.0.1 port {port}: .*; choose another --port"):
            webui(_never, WebuiOptions(port=port))  # type: ignore[arg-type]


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(OptionError, match="--port"):
        build(WebuiOptions, {"port": 70000})


def test_texts_are_shown_as_texts() -> None:
    shown, status = _shown(View((("user", "<b>&"), ("assistant", "**a**")), "2 tokens"))
    assert shown == [{"role": "user", "content": "&lt;b&gt;&amp;"}, {"role": "assistant", "content": "**a**"}]
    assert status == "2 tokens"
