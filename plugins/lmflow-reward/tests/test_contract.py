"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import PluginContract, RewardContract


class TestPlugin(PluginContract):
    name = "reward"


class TestExact(RewardContract):
    name = "exact"
    fields = {"answer": ["Five.", 5]}
    better, worse = " five. ".title(), "Six."


class TestRegex(RewardContract):
    name = "regex"
    options = {"regex_pattern": r"\d+"}
    better, worse = "5", "Five."


class TestJsonSchema(RewardContract):
    name = "json-schema"
    fields = {"schema": {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}}
    better, worse = '{"sum": 5}', '{"sum": "five"}'


class TestArithmetic(RewardContract):
    name = "arithmetic"
    better, worse = "So it is 5.", "So it is 6."


class TestLength(RewardContract):
    name = "length"
    better, worse = "Five.", "x " * 150
