"""Declares what this plugin offers; everything heavy is behind a target."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import DecoderSpec, ExporterSpec, ModelSpec, hookimpl
from lmflow_gguf.options import AdapterOptions, GgufOptions, LlamaCppOptions, OllamaOptions

RUNTIME = "llama-cpp"
_BINDING = ("llama-cpp-python",)


@hookimpl
def lmflow_register_models() -> Iterable[ModelSpec]:
    """Offer GGUF files, run as they are by llama.cpp."""
    yield ModelSpec(
        name="llama-cpp",
        target="lmflow_gguf.model:LlamaCppLoader",
        summary="GGUF files, run by llama.cpp.",
        references=("gguf",),
        native=("gguf",),
        runtime=RUNTIME,
        decoder="llama-cpp",
        adapter_suffix=".gguf",
        requires=_BINDING,
    )


@hookimpl
def lmflow_register_decoders() -> Iterable[DecoderSpec]:
    """Offer llama.cpp's samplers."""
    yield DecoderSpec(
        name="llama-cpp",
        target="lmflow_gguf.decoder:LlamaCppDecoder",
        summary="Tokens sampled by llama.cpp: grammars, schemas, lookup.",
        options=LlamaCppOptions,
        runtime=RUNTIME,
        batches=True,
        requires=_BINDING,
        exact=True,
    )


@hookimpl
def lmflow_register_exporters() -> Iterable[ExporterSpec]:
    """Offer GGUF files of models and adapters, Ollama's form, and LLaMA's original one."""
    yield ExporterSpec(
        name="gguf",
        target="lmflow_gguf.export:GgufExporter",
        summary="GGUF files for llama.cpp, quantised or not.",
        options=GgufOptions,
        takes="files",
        suffix=".gguf",
        companions=("mmproj-",),
        reopens=True,
    )
    yield ExporterSpec(
        name="gguf-adapter",
        target="lmflow_gguf.adapter:AdapterExporter",
        summary="A LoRA adapter alone, as llama.cpp puts it on.",
        options=AdapterOptions,
        takes="adapter",
        suffix=".gguf",
    )
    yield ExporterSpec(
        name="ollama",
        target="lmflow_gguf.ollama:OllamaExporter",
        summary="A GGUF file with a Modelfile for Ollama.",
        options=OllamaOptions,
        takes="files",
    )
    yield ExporterSpec(
        name="pt",
        target="lmflow_gguf.original:OriginalExporter",
        summary="A consolidated .pth in LLaMA's original layout.",
        takes="files",
    )
