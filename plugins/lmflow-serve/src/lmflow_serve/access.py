"""Who is let in."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from lmflow_core.api import asks_this_machine, is_loopback
from lmflow_serve.errors import ApiError


class Access:
    """Checks requests for the key, or, where there is none, that no web page of another site sends them."""

    def __init__(self, key: str | None, host: str) -> None:
        self._key = key
        self._this_machine_only = key is None and is_loopback(host)

    def check(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            ApiError: the key is missing or wrong, or the request is meant for another host or comes from its page.
        """
        if self._key is not None:
            self._check_key(request.headers.get("authorization", ""))
        elif self._this_machine_only and not asks_this_machine(
            request.headers.get("host", ""), request.headers.getlist("origin")
        ):
            raise ApiError(403, "without an API key, this server answers to localhost only")

    def _check_key(self, authorization: str) -> None:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise ApiError(
                401, "no API key is given; send the header 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
        if not hmac.compare_digest(given.strip().encode("latin-1"), str(self._key).encode()):
            raise ApiError(401, "the API key is wrong", code="invalid_api_key")
