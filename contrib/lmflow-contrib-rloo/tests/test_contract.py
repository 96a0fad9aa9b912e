"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ObjectiveContract, PluginContract


class TestPlugin(PluginContract):
    name = "contrib-rloo"


class TestRloo(ObjectiveContract):
    name = "rloo"
    options = {"rloo_max_new_tokens": 6, "rloo_samples": 6}
    watched = "reward"
    falls = False
