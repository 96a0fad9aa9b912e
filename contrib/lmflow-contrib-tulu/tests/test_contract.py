"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract, TemplateContract


class TestPlugin(PluginContract):
    name = "contrib-tulu"


class TestTulu3(TemplateContract):
    name = "tulu3"
