"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ModelContract, PluginContract


class TestPlugin(PluginContract):
    name = "multimodal"


class TestImageText(ModelContract):
    name = "image-text"
