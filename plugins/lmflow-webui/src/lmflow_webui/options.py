"""Options of the web page."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class WebuiOptions:
    """Where the page is served, and to whom."""

    host: str = option("127.0.0.1", help="Address to listen on.")
    port: int = option(7860, help="Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)
    allow_anyone: bool = option(False, help="Let other machines in: the page asks for no password.")
