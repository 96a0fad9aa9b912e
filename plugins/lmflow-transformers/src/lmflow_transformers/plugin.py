"""Declares what the torch runtime offers; everything heavy is behind a target."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import (
    AttentionSpec,
    DecoderSpec,
    EngineSpec,
    ExporterSpec,
    ModelSpec,
    ObjectiveSpec,
    OptimizerSpec,
    TunerSpec,
    hookimpl,
)
from lmflow_transformers.options import (
    LAUNCHER,
    STARTING,
    AdamWOptions,
    FsdpOptions,
    LaunchOptions,
    SamplingOptions,
    SftOptions,
)


@hookimpl
def lmflow_register_models() -> Iterable[ModelSpec]:
    """Offer causal language models from a folder, a hub name or a GGUF file."""
    yield ModelSpec(
        name="causal",
        target="lmflow_transformers.models:CausalModelLoader",
        summary="Causal language models of transformers.",
        references=("folder", "hub", "gguf"),
        native=("folder", "hub"),
    )


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer full fine-tuning."""
    yield TunerSpec(
        name="full",
        target="lmflow_transformers.tuners:FullTuner",
        summary="Train every parameter.",
        learning_rate=2e-5,
    )


@hookimpl
def lmflow_register_objectives() -> Iterable[ObjectiveSpec]:
    """Offer supervised fine-tuning."""
    yield ObjectiveSpec(
        name="sft",
        target="lmflow_transformers.training.sft:SftObjective",
        summary="Supervised fine-tuning: predict the labelled tokens.",
        examples=("text", "prompted", "conversation", "image_text"),
        options=SftOptions,
    )


@hookimpl
def lmflow_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer AdamW."""
    yield OptimizerSpec(
        name="adamw",
        target="lmflow_transformers.training.optimizers:AdamW",
        summary="AdamW in PyTorch's fused kernel.",
        aliases=("adamw_torch", "adamw_torch_fused"),
        options=AdamWOptions,
    )


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer plain sampling."""
    yield DecoderSpec(
        name="sampling",
        target="lmflow_transformers.sampling:SamplingDecoder",
        summary="One token at a time: greedy, temperature, top-k, top-p.",
        options=SamplingOptions,
        batches=True,
        images=True,
        exact=True,
    )


@hookimpl
def lmflow_register_exporters() -> Iterable[ExporterSpec]:
    """Offer the Hugging Face folder."""
    yield ExporterSpec(
        name="huggingface",
        target="lmflow_transformers.export:HuggingFaceExporter",
        summary="A folder of safetensors that transformers loads.",
        aliases=("hf",),
        library="transformers",
        tasks=("causal", "image-text", "regression"),
        reopens=True,
    )


@hookimpl
def lmflow_register_attentions() -> Iterable[AttentionSpec]:
    """Offer PyTorch's own attention."""
    yield AttentionSpec(
        name="sdpa",
        target="lmflow_transformers.attention:SdpaAttention",
        summary="PyTorch's attention, block-diagonal over packed sequences.",
    )


@hookimpl
def lmflow_register_engines() -> Iterable[EngineSpec]:
    """Offer one process, and several with the same weights."""
    yield EngineSpec(name="local", target="lmflow_transformers.engines:LocalEngine", summary="One process.")
    yield EngineSpec(
        name="torchrun",
        target="lmflow_transformers.engines:TorchrunEngine",
        summary="Processes started here, by torchrun or Slurm, data parallel.",
        options=LaunchOptions,
        environment=("RANK", "WORLD_SIZE", "MASTER_ADDR"),
        environments=(("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST"),),
        chosen_by=STARTING,
        launcher=LAUNCHER,
    )
    yield EngineSpec(
        name="fsdp",
        target="lmflow_transformers.fsdp:FsdpEngine",
        summary="The same processes, each with a shard of all weights.",
        options=FsdpOptions,
        chosen_by=("fsdp_offload", "fsdp_reshard_after_forward"),
        lighter=("fsdp_offload=cpu",),
        launcher=LAUNCHER,
    )
