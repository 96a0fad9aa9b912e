"""The hooks a plugin may implement. Each takes no argument and returns specs; none is called in a hot loop.

Every implementation is called, once, when plugins load. Order never matters: a user chooses by name.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from lmflow_core.specs import (
    AttentionSpec,
    BenchmarkSpec,
    CommandSpec,
    DatasetSpec,
    DecoderSpec,
    EngineSpec,
    ExporterSpec,
    ModelSpec,
    ObjectiveSpec,
    PositionScalingSpec,
    SourceSpec,
    Spec,
    TemplateSpec,
    TunerSpec,
)

PROJECT = "lmflow"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class HookSpecs:
    """The extension points of LMFlow."""

    @hookspec
    def lmflow_register_models(self) -> Iterable[ModelSpec]:
        """Offer ways to open a model (``--model``)."""

    @hookspec
    def lmflow_register_tuners(self) -> Iterable[TunerSpec]:
        """Offer ways to choose and keep what trains (``--tuner``)."""

    @hookspec
    def lmflow_register_objectives(self) -> Iterable[ObjectiveSpec]:
        """Offer losses (``--objective``)."""

    @hookspec
    def lmflow_register_templates(self) -> Iterable[TemplateSpec]:
        """Offer conversation templates (``--template``)."""

    @hookspec
    def lmflow_register_datasets(self) -> Iterable[DatasetSpec]:
        """Offer forms of data rows (``--dataset-format``)."""

    @hookspec
    def lmflow_register_sources(self) -> Iterable[SourceSpec]:
        """Offer places that rows are read from (``--dataset``)."""

    @hookspec
    def lmflow_register_decoders(self) -> Iterable[DecoderSpec]:
        """Offer ways to draw tokens (``--decoder``)."""

    @hookspec
    def lmflow_register_exporters(self) -> Iterable[ExporterSpec]:
        """Offer forms to write a model in (``--format``)."""

    @hookspec
    def lmflow_register_attentions(self) -> Iterable[AttentionSpec]:
        """Offer attention implementations (``--attention``)."""

    @hookspec
    def lmflow_register_position_scalings(self) -> Iterable[PositionScalingSpec]:
        """Offer ways to extend rotary positions (``--position-scaling``)."""

    @hookspec
    def lmflow_register_benchmarks(self) -> Iterable[BenchmarkSpec]:
        """Offer measurements of a model (``--benchmark``)."""

    @hookspec
    def lmflow_register_engines(self) -> Iterable[EngineSpec]:
        """Offer ways to spread a training job (``--engine``)."""

    @hookspec
    def lmflow_register_commands(self) -> Iterable[CommandSpec]:
        """Offer commands of ``lmflow``."""


HOOKS: dict[str, type[Spec]] = {
    "lmflow_register_models": ModelSpec,
    "lmflow_register_tuners": TunerSpec,
    "lmflow_register_objectives": ObjectiveSpec,
    "lmflow_register_templates": TemplateSpec,
    "lmflow_register_datasets": DatasetSpec,
    "lmflow_register_sources": SourceSpec,
    "lmflow_register_decoders": DecoderSpec,
    "lmflow_register_exporters": ExporterSpec,
    "lmflow_register_attentions": AttentionSpec,
    "lmflow_register_position_scalings": PositionScalingSpec,
    "lmflow_register_benchmarks": BenchmarkSpec,
    "lmflow_register_engines": EngineSpec,
    "lmflow_register_commands": CommandSpec,
}
