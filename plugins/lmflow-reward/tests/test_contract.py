"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import BenchmarkContract, ObjectiveContract, PluginContract


class TestPlugin(PluginContract):
    name = "reward"


class TestReward(ObjectiveContract):
    name = "reward"


class TestScores(ObjectiveContract):
    name = "reward-scores"


class TestPairwiseAccuracy(BenchmarkContract):
    name = "pairwise-accuracy"
