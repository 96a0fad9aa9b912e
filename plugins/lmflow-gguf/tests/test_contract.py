"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import DecoderContract, ExporterContract, ModelContract, PluginContract


class TestPlugin(PluginContract):
    name = "gguf"


class TestLlamaCppModel(ModelContract):
    name = "llama-cpp"


class TestLlamaCppDecoder(DecoderContract):
    name = "llama-cpp"


class TestGguf(ExporterContract):
    name = "gguf"
    options = {"pre_tokenizer": "gpt-2"}


class TestGgufAdapter(ExporterContract):
    name = "gguf-adapter"


class TestOllama(ExporterContract):
    name = "ollama"
    options = {"pre_tokenizer": "gpt-2"}


class TestPt(ExporterContract):
    name = "pt"
