"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import ObjectiveContract, PluginContract


class TestPlugin(PluginContract):
    name = "raft"


class TestRaft(ObjectiveContract):
    name = "raft"
    options = {"raft_max_new_tokens": 2, "raft_samples": 6}
    watched = "sampled_reward"
    falls = False


class TestReinforceRej(ObjectiveContract):
    name = "raft"
    options = {"raft_max_new_tokens": 2, "raft_samples": 6, "raft_method": "reinforce-rej"}
    watched = "sampled_reward"
    falls = False
