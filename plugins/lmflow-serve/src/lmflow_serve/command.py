"""``lmflow serve``: a socket, a model and the application between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from lmflow_core.api import ChatModel, RequestError, is_loopback
from lmflow_serve.app import Service
from lmflow_serve.connections import Connection
from lmflow_serve.options import ServeOptions

_KEY_VARIABLE = "LMFLOW_API_KEY"


def serve(open_model: Callable[[], ChatModel], options: ServeOptions) -> None:
    """Serve a model until the process is told to end.

    Raises:
        RequestError: the address is taken, or it is open to other machines and there is no key.
    """
    key = options.api_key or os.environ.get(_KEY_VARIABLE) or None
    if key is None and not is_loopback(options.host) and not options.allow_anyone:
        raise RequestError(
            f"--host {options.host} lets other machines in: give a key with --api-key or {_KEY_VARIABLE}, "
            "or add --allow-anyone"
        )
    # The port is taken before the model loads, which may take minutes, so that a clash shows at once.
    with _bound(options.host, options.port) as listener:
        service = _in_a_thread(lambda: _service(open_model(), options, key))
        server = uvicorn.Server(server_config(service, options))
        with _signals_end(server):
            listener.listen()  # who reads the line below may connect at once
            told = f"serving {service.name} at {_url(listener)}/v1; {service.described}; Ctrl-C ends"
            print(f"lmflow: {told}", file=sys.stderr, flush=True)
            server.run([listener])


def server_config(service: Service, options: ServeOptions) -> uvicorn.Config:
    """Return how uvicorn serves a model."""
    return uvicorn.Config(
        service.app(),
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # requests that are nonsense are no news
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=options.client_timeout,  # type: ignore[arg-type]  # fractions work
        timeout_graceful_shutdown=options.grace_time,  # type: ignore[arg-type]
    )


def _service(model: ChatModel, options: ServeOptions, key: str | None) -> Service:
    return Service(model, options.served_model_name or Path(model.name).name, options, key)


def _in_a_thread(work: Callable[[], Service]) -> Service:
    """Return what some work gives, done in a thread that ends with it.

    OpenMP keeps the workers of every thread that computed, and where they are more than processors they sleep between
    two products instead of waiting for the next: answers would take twice as long.
    """
    with ThreadPoolExecutor(1, "opening") as pool:
        return pool.submit(work).result()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RequestError(f"--host {host} is no address: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise RequestError(f"cannot listen on {host} port {port}: {error.strerror}; choose another --port") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Make being told to end the normal end, also before uvicorn listens to signals and when it raises them again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
