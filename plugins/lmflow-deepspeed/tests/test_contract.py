"""The plugin and its engine keep their contracts."""

from __future__ import annotations

import pytest

from lmflow_core.testing.contracts import EngineContract, PluginContract

pytest.importorskip("deepspeed")


class TestPlugin(PluginContract):
    name = "deepspeed"


class TestDeepSpeed(EngineContract):
    name = "deepspeed"
