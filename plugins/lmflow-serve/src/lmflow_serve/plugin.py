"""Declares the command ``lmflow serve``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import CommandSpec, hookimpl
from lmflow_serve.options import ServeOptions


@hookimpl
def lmflow_register_commands() -> Iterable[CommandSpec]:
    """Offer the server."""
    yield CommandSpec(
        name="serve",
        target="lmflow_serve.command:serve",
        summary="Serve a model over an OpenAI-compatible HTTP interface.",
        options=ServeOptions,
        chats=True,
    )
