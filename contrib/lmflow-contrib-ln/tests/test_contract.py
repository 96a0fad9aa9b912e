"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract, TunerContract


class TestPlugin(PluginContract):
    name = "contrib-ln"


class TestLn(TunerContract):
    name = "ln"
