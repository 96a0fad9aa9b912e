"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract, PositionScalingContract


class TestPlugin(PluginContract):
    name = "contrib-ntk-mixed"


class TestNtkMixed(PositionScalingContract):
    name = "ntk-mixed"
