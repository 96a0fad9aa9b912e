"""Options of the server."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where the server listens, whom it lets in, and how much it takes on."""

    host: str = option("127.0.0.1", help="Address to listen on.")
    port: int = option(8000, help="Port to listen on; 0 takes a free one.", minimum=0, maximum=65535)
    api_key: str | None = option(None, help="Key that clients must give; also read from LMFLOW_API_KEY.")
    allow_anyone: bool = option(False, help="Let other machines in without a key.")
    served_model_name: str | None = option(
        None, help="Name of the model for clients; the last part of --model when left out."
    )
    slots: int | None = option(
        None,
        help="Most answers that are written at a time; 16 where the decoder samples for them together, else 1, "
        "when left out.",
        minimum=1,
    )
    cache_tokens: int | None = option(
        None,
        help="Tokens of prompts and answers that are held in memory at most; a quarter of what is free when left out.",
        minimum=1,
    )
    max_queue: int = option(128, help="Requests that may wait for a slot; more are told to come back.", minimum=0)
    max_request_tokens: int | None = option(
        None, help="Most tokens a request may ask for; the model's context when left out.", minimum=1
    )
    max_body_bytes: int = option(1_000_000, help="Longest body of a request, beside its images.", minimum=1)
    max_image_bytes: int = option(
        20_000_000, help="Most bytes of the images of a request, with a model that sees.", minimum=1
    )
    max_images: int = option(
        16, help="Most images that the answers to a request may be to, with a model that sees.", minimum=1
    )
    client_timeout: float = option(
        60.0, help="Seconds that a client may take to send its request or to read a piece of the answer.", above=0
    )
    grace_time: float = option(30.0, help="Seconds that running answers get when the server is told to end.", above=0)
