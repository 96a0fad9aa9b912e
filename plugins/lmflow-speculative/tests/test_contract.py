"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import (
    CommandContract,
    DecoderContract,
    ObjectiveContract,
    PluginContract,
    TunerContract,
)


class TestPlugin(PluginContract):
    name = "speculative"


class TestPromptLookup(DecoderContract):
    name = "prompt-lookup"


class TestSpeculative(DecoderContract):
    name = "speculative"
    options = {"draft_model": "{tiny_model}"}


class TestSelfSpeculative(DecoderContract):
    name = "self-speculative"


class TestDistillation(ObjectiveContract):
    name = "distillation"
    options = {"teacher": "{other_model}"}


class TestDraft(TunerContract):
    name = "draft"


class TestDistillDraft(CommandContract):
    name = "distill-draft"
