"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_core.testing.contracts import BenchmarkContract, ObjectiveContract, PluginContract, RewardContract


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


class TestReward(ObjectiveContract):
    name = "reward"


class TestScores(ObjectiveContract):
    name = "reward-scores"


class TestPairwiseAccuracy(BenchmarkContract):
    name = "pairwise-accuracy"


class TestModel(RewardContract):
    name = "model"
    options = {"reward_model": "{reward_model}"}

    @pytest.fixture(scope="class")
    @classmethod
    def reward_model(cls, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of a model with a head for one number."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = tmp_path_factory.mktemp("reward") / "model"
        network = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        network.config.pad_token_id = tokenizer.pad_token_id
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder
