"""Declares models that see."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import CommandSpec, ModelSpec, hookimpl
from lmflow_multimodal.families import MODEL_TYPES


@hookimpl
def lmflow_register_models() -> Iterable[ModelSpec]:
    """Offer image-text models from a folder."""
    yield ModelSpec(
        name="image-text",
        target="lmflow_multimodal.loader:ImageTextLoader",
        summary="Language models of transformers that see images.",
        references=("folder",),
        native=("folder",),
        model_types=MODEL_TYPES,
    )


@hookimpl
def lmflow_register_commands() -> Iterable[CommandSpec]:
    """Offer to assemble a model that sees."""
    yield CommandSpec(
        name="vlm",
        target="lmflow_multimodal.assembly.command:vlm",
        summary="Make a model that sees of a language model and eyes.",
    )
