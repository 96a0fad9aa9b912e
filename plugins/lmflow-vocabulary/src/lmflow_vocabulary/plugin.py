"""Declares the command that works on vocabularies, and the tuner of new rows."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import CommandSpec, TunerSpec, hookimpl
from lmflow_vocabulary.options import EmbeddingsOptions


@hookimpl
def lmflow_register_commands() -> Iterable[CommandSpec]:
    """Offer to train, extend and measure vocabularies."""
    yield CommandSpec(
        name="vocab",
        target="lmflow_vocabulary.command:vocab",
        summary="Train, extend or measure a vocabulary.",
    )


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer to train the rows of new tokens alone."""
    yield TunerSpec(
        name="embeddings",
        target="lmflow_vocabulary.tuner:EmbeddingsTuner",
        summary="Train the rows of new tokens and nothing else.",
        options=EmbeddingsOptions,
        learning_rate=1e-3,
    )
