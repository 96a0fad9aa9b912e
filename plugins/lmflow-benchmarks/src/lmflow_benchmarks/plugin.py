"""What this distribution provides; light to import."""

from __future__ import annotations

from collections.abc import Iterator

from lmflow_benchmarks.options import HarnessOptions, LmflowOptions, TaskOptions
from lmflow_core.api import BenchmarkSpec, hookimpl


@hookimpl
def lmflow_register_benchmarks() -> Iterator[BenchmarkSpec]:
    """Declare the benchmarks."""
    yield BenchmarkSpec(
        name="lm-eval",
        target="lmflow_benchmarks.harness:HarnessBenchmark",
        summary="Tasks of lm-evaluation-harness, by name or from files.",
        requires=("lm-eval",),
        options=HarnessOptions,
        answers=True,
        tasks=("causal",),
    )
    yield BenchmarkSpec(
        name="lmflow",
        target="lmflow_benchmarks.lmflow_sets:LmflowBenchmark",
        summary="Likelihood and accuracy of answers, by data set.",
        options=LmflowOptions,
        examples=("text", "prompted", "conversation"),
        answers=True,
    )
    yield BenchmarkSpec(
        name="tasks",
        target="lmflow_benchmarks.tasks:TaskBenchmark",
        summary="Your own questions: choices, exact answers, texts.",
        options=TaskOptions,
        answers=True,
        tasks=("causal",),
    )
