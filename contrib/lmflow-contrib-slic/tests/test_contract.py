"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ObjectiveContract, PluginContract


class TestPlugin(PluginContract):
    name = "contrib-slic"


class TestSlic(ObjectiveContract):
    name = "slic"
