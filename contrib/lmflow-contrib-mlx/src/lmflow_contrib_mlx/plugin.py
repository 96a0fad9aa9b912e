"""Declares the exporter ``mlx``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_contrib_mlx.options import MlxOptions
from lmflow_core.api import ExporterSpec, hookimpl


@hookimpl
def lmflow_register_exporters() -> Iterable[ExporterSpec]:
    """Offer the exporter."""
    yield ExporterSpec(
        name="mlx",
        target="lmflow_contrib_mlx.exporter:MlxExporter",
        summary="A folder that mlx-lm loads on Apple's chips.",
        options=MlxOptions,
    )
