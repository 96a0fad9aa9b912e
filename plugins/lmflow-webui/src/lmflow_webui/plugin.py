"""Declares the command ``lmflow webui``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import CommandSpec, hookimpl
from lmflow_webui.options import WebuiOptions


@hookimpl
def lmflow_register_commands() -> Iterable[CommandSpec]:
    """Offer the web page."""
    yield CommandSpec(
        name="webui",
        target="lmflow_webui.command:webui",
        summary="Chat with a model on a web page.",
        options=WebuiOptions,
        chats=True,
    )
