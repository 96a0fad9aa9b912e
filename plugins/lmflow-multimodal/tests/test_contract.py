"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import CommandContract, ModelContract, PluginContract


class TestPlugin(PluginContract):
    name = "multimodal"


class TestImageText(ModelContract):
    name = "image-text"


class TestVlm(CommandContract):
    name = "vlm"
