"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ObjectiveContract, PluginContract


class TestPlugin(PluginContract):
    name = "preference"


class TestDpo(ObjectiveContract):
    name = "dpo"


class TestDpoBesideAReference(ObjectiveContract):
    name = "dpo"
    options = {"reference_model": "{other_model}"}


class TestIterativeDpo(ObjectiveContract):
    name = "iterative-dpo"
    options = {"iterative_max_new_tokens": 2, "iterative_samples": 6}
    watched = "sampled_reward"
    falls = False


class TestKto(ObjectiveContract):
    name = "kto"
