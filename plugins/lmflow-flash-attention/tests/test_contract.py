"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import AttentionContract, PluginContract


class TestPlugin(PluginContract):
    name = "flash-attention"


class TestFlash(AttentionContract):
    name = "flash"
