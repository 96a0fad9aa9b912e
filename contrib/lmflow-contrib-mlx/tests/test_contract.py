"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ExporterContract, PluginContract


class TestPlugin(PluginContract):
    name = "contrib-mlx"


class TestMlx(ExporterContract):
    name = "mlx"
