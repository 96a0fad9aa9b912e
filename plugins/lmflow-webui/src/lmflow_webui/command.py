"""``lmflow webui``: the page behind an address of this machine."""

from __future__ import annotations

import socket
import sys
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request

from lmflow_core.api import ModelOpener, RequestError, is_loopback
from lmflow_webui.access import LONGEST_BODY, protect, refusal
from lmflow_webui.conversations import WebChat
from lmflow_webui.options import WebuiOptions
from lmflow_webui.page import make_page, theme
from lmflow_webui.pictures import MOST_BYTES

# No visitor sends files.
_LARGEST_FILE = 1


def webui(open_model: ModelOpener, options: WebuiOptions) -> None:
    """Serve the page until the process is told to end.

    Raises:
        RequestError: the address is taken, or it is open to other machines and that was not asked for.
    """
    local = is_loopback(options.host)
    if not local and not options.allow_anyone:
        raise RequestError(f"--host {options.host} lets other machines in: add --allow-anyone if they may")
    with _bound(options.host, options.port) as listener:
        app = make_app(WebChat(open_model), local=local)
        port = listener.getsockname()[1]
        print(f"lmflow: the page is at http://{options.host}:{port}; Ctrl-C ends", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            app, log_level="error", access_log=False, proxy_headers=False, ws="none", timeout_graceful_shutdown=2
        )
        uvicorn.Server(config).run([listener])


def make_app(chat: WebChat, *, local: bool) -> FastAPI:
    """Return the application that serves the page.

    Args:
        chat: what the page talks with.
        local: whether it answers to this machine only.
    """
    app = FastAPI(openapi_url=None)

    @app.middleware("http")
    async def restrict(request: Request, call_next: Any) -> Any:
        longest = LONGEST_BODY + (MOST_BYTES if chat.sees else 0)
        return protect(refusal(request, local=local, longest=longest) or await call_next(request))

    return gr.mount_gradio_app(
        app,
        make_page(chat),
        path="/",
        theme=theme(),
        footer_links=[],
        ssr_mode=False,
        run_history=False,
        max_file_size=_LARGEST_FILE,
    )


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise RequestError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from error
