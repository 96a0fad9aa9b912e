"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import CommandContract, PluginContract


class TestPlugin(PluginContract):
    name = "webui"


class TestWebui(CommandContract):
    name = "webui"
