"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import BenchmarkContract, PluginContract, PositionScalingContract


class TestPlugin(PluginContract):
    name = "position-scaling"


class TestLinear(PositionScalingContract):
    name = "linear"


class TestNtk(PositionScalingContract):
    name = "ntk"


class TestDynamicNtk(PositionScalingContract):
    name = "dynamic-ntk"


class TestYarn(PositionScalingContract):
    name = "yarn"
    wrong_options = ({"yarn_beta_fast": 1.0, "yarn_beta_slow": 32.0},)


class TestLlama3(PositionScalingContract):
    name = "llama3"
    wrong_options = ({"llama3_low_freq_factor": 4.0, "llama3_high_freq_factor": 1.0},)


class TestLongrope(PositionScalingContract):
    name = "longrope"
    wrong_options = ({"longrope_long_factor": (1.0, 2.0)},)


class TestPasskey(BenchmarkContract):
    name = "passkey"
    options = {"passkey_lengths": (220, 250), "passkey_depths": 2, "passkey_trials": 1}
