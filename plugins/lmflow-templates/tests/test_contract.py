"""What LMFlow asks of every plugin; the templates are held to their contract in ``test_catalog.py``."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract


class TestPlugin(PluginContract):
    name = "templates"
