"""What is kept from the page: other sites, other machines, and bodies that no visitor types."""

from __future__ import annotations

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

from lmflow_core.api import asks_this_machine

LONGEST_BODY = 1_000_000
# Whatever the page or a text in it names, the browser asks no other machine for it, and no other page shows this one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def refusal(request: Request, *, local: bool, longest: int = LONGEST_BODY) -> Response | None:
    """Return the answer to a request that is refused; None for one that may pass.

    Args:
        request: asks for the page or for what it needs.
        local: whether only this machine may ask, and only pages that it serves itself: the name of a page of another
            site may be made to lead here.
        longest: most bytes that a request may have.
    """
    if local and not asks_this_machine(request.headers.get("host", ""), request.headers.getlist("origin")):
        return PlainTextResponse("This page is for its own machine: open it as http://127.0.0.1 or localhost.", 403)
    if request.method == "POST" and not 0 <= _length(request) <= longest:
        return PlainTextResponse(f"The request has no length, or is longer than {longest} bytes.", 413)
    return None


def protect(response: Response) -> Response:
    """Tell the browser what the page may do."""
    response.headers.update(_HEADERS)
    return response


def _length(request: Request) -> int:
    told = request.headers.get("content-length", "")
    return int(told) if told.isdecimal() else -1
