"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract, TunerContract


class TestPlugin(PluginContract):
    name = "lisa"


class TestLisa(TunerContract):
    name = "lisa"
