"""What a model gives decides which components work with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lmflow_core.api import (
    AnsweringBenchmark,
    BenchmarkSpec,
    DataBenchmark,
    ExporterSpec,
    LoadPlan,
    ObjectiveSpec,
    RequestError,
    SetsBenchmark,
)
from lmflow_core.contracts.benchmark import Benchmark
from lmflow_core.models.tasks import check_predicts, check_task


def _model(task: str) -> Any:
    return SimpleNamespace(reference="m", plan=LoadPlan(task=task))


@pytest.mark.parametrize("task", ["causal", "image-text"])
def test_a_model_that_predicts_tokens_passes(task: str) -> None:
    check_predicts(_model(task), "it")


@pytest.mark.parametrize(
    ("task", "tasks", "told"),
    [
        (
            "regression",
            ("causal", "image-text"),
            "m gives a number for a text, and it needs a model that predicts tokens",
        ),
        ("causal", ("regression",), "m predicts tokens, and it needs a model that gives a number for a text"),
        (
            "speech",
            ("causal", "regression"),
            "is loaded for the task 'speech', and it needs a model that predicts tokens or",
        ),
    ],
)
def test_another_is_refused_with_what_it_gives(task: str, tasks: tuple[str, ...], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check_task(_model(task), tasks, "it")


def test_components_need_tokens_unless_they_say_otherwise() -> None:
    rest = {"name": "x", "target": "a:B", "summary": "X."}
    specs: list[Any] = [ObjectiveSpec(examples=("text",), **rest), BenchmarkSpec(**rest), ExporterSpec(**rest)]
    assert {spec.tasks for spec in specs} == {("causal", "image-text")}


def test_a_benchmark_with_examples_is_given_data() -> None:
    rest = {"name": "x", "target": "a:B", "summary": "X."}
    assert BenchmarkSpec(**rest).contracts() == (Benchmark,)
    assert BenchmarkSpec(examples=("preference",), **rest).contracts() == (DataBenchmark,)
    assert BenchmarkSpec(answers=True, **rest).contracts() == (AnsweringBenchmark,)
    assert BenchmarkSpec(examples=("text",), answers=True, **rest).contracts() == (SetsBenchmark,)
