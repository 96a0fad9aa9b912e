"""Options of the tuner of new rows."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class EmbeddingsOptions:
    """Which rows train."""

    embeddings_from: int | None = option(
        None,
        help="Id of the first token whose row trains; the model tells it when lmflow vocab extend made it.",
        minimum=0,
    )
