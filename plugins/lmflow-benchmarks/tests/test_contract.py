"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from lmflow_core.testing.contracts import BenchmarkContract, PluginContract


class TestPlugin(PluginContract):
    name = "benchmarks"


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is an optional requirement")
@pytest.mark.skipif(find_spec("lmflow_transformers") is None, reason="models are opened by the plugin that runs them")
class TestHarness(BenchmarkContract):
    name = "lm-eval"
    options = {"tasks": ("sums",), "include_path": "{task_folder}"}

    @pytest.fixture(scope="class")
    @classmethod
    def task_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return a folder with a task of two questions."""
        folder = tmp_path_factory.mktemp("tasks")
        rows = folder / "rows.jsonl"
        rows.write_text('{"sum": "1 + 1", "right": 0}\n{"sum": "1 + 2", "right": 1}\n', encoding="utf-8")
        (folder / "sums.yaml").write_text(
            f"""
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{sum}}}} ="
doc_to_target: right
doc_to_choice: ["2", "3"]
metric_list: [{{metric: acc}}]
""",
            encoding="utf-8",
        )
        return folder


@pytest.mark.skipif(find_spec("lmflow_transformers") is None, reason="models are opened by the plugin that runs them")
class TestLmflow(BenchmarkContract):
    name = "lmflow"
    options = {"metric": ("nll", "ppl")}


@pytest.mark.skipif(find_spec("lmflow_transformers") is None, reason="models are opened by the plugin that runs them")
class TestLmflowAccuracy(BenchmarkContract):
    name = "lmflow"
    options = {"metric": ("accuracy",), "max_new_tokens": 4}

    @pytest.fixture(scope="class")
    @classmethod
    def data_folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return a folder of prompts with their answers; a text has no prompt."""
        folder = tmp_path_factory.mktemp("answers")
        (folder / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "completion": " 2"}\n' * 2, encoding="utf-8")
        return folder


@pytest.mark.skipif(find_spec("lmflow_transformers") is None, reason="models are opened by the plugin that runs them")
class TestTasks(BenchmarkContract):
    name = "tasks"
    options = {"task_file": "{sums}"}

    @pytest.fixture(scope="class")
    @classmethod
    def sums(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the file of a task of two questions."""
        folder = tmp_path_factory.mktemp("own")
        (folder / "rows.jsonl").write_text('{"sum": "1 + 1", "is": 2}\n{"sum": "1 + 2", "is": 3}\n', encoding="utf-8")
        task = 'kind: exact-match\ndata: rows.jsonl\nprompt: "{sum} ="\nanswer: is\nmax_new_tokens: 2\n'
        (folder / "sums.yaml").write_text(task, encoding="utf-8")
        return folder / "sums.yaml"
