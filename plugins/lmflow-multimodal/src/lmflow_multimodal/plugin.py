"""Declares models that see."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import ModelSpec, hookimpl
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
