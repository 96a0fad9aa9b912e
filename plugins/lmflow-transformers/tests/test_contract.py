"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import (
    AttentionContract,
    DecoderContract,
    EngineContract,
    ExporterContract,
    ModelContract,
    ObjectiveContract,
    OptimizerContract,
    PluginContract,
    TunerContract,
)


class TestPlugin(PluginContract):
    name = "transformers"


class TestCausal(ModelContract):
    name = "causal"


class TestFull(TunerContract):
    name = "full"


class TestSft(ObjectiveContract):
    name = "sft"


class TestAdamw(OptimizerContract):
    name = "adamw"


class TestSampling(DecoderContract):
    name = "sampling"


class TestHuggingface(ExporterContract):
    name = "huggingface"


class TestSdpa(AttentionContract):
    name = "sdpa"


class TestLocal(EngineContract):
    name = "local"


class TestTorchrun(EngineContract):
    name = "torchrun"


class TestFsdp(EngineContract):
    name = "fsdp"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
