"""The benchmark ``lm-eval``: tasks of lm-evaluation-harness as they are, over LMFlow's scorer and generator."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lm_eval.evaluator import evaluate

from lmflow_benchmarks.asked_model import AskedModel
from lmflow_benchmarks.harness_model import HarnessModel
from lmflow_benchmarks.harness_tasks import load_tasks
from lmflow_benchmarks.options import HarnessOptions
from lmflow_core.api import BenchmarkReport, LanguageModel, PromptAnswers

_DEVIATION = "_stderr"
# It tells of each task what its file leaves out.
logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)


class HarnessBenchmark:
    """Runs tasks; the figures are those of the harness, with their standard errors where it tells them."""

    def __init__(self, options: HarnessOptions) -> None:
        self._options = options

    def run(self, model: LanguageModel, answers: PromptAnswers) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: there is no such task, its data cannot be had, or the model cannot be asked so.
        """
        options = self._options
        with contextlib.redirect_stdout(sys.stderr):  # the harness talks, and standard output is for the result
            tasks = load_tasks(options)
            random.seed(0)  # some tasks choose by it
            found = evaluate(
                HarnessModel(AskedModel(model, answers, options.answer_seed, "lm-eval")),
                task_dict=tasks,
                limit=options.limit,
                apply_chat_template=options.apply_chat_template,
                fewshot_as_multiturn=options.apply_chat_template and options.fewshot_as_multiturn,
                system_instruction=options.system_instruction,
            )
        figures = {**found["results"], **found.get("groups", {})}
        metrics = {name: value for task, told in figures.items() for name, value in _metrics(task, told)}
        samples = [_sample(task, row) for task, rows in found["samples"].items() for row in rows]
        return BenchmarkReport(metrics, samples=samples)


def _metrics(task: str, told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the figures of a task by name: the harness calls them ``metric,filter``, with ``none`` for no filter."""
    for key, value in told.items():
        metric, comma, filtered = key.partition(",")
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if comma and is_number:
            name = metric.replace(_DEVIATION, " standard error")
            yield f"{task} {name}" + ("" if filtered == "none" else f" ({filtered})"), float(value)


def _sample(task: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a question: what was asked, what came, and what that is worth."""
    scores = {name: _plain(row[name]) for name in row["metrics"] if name in row}
    return {
        "task": task,
        "id": row["doc_id"],
        "filter": row["filter"],
        "scores": scores,
        "target": _plain(row["target"]),
        "asked": [_plain(arguments) for arguments in row["arguments"]],
        "found": _plain(row["filtered_resps"]),
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON can say it."""
    return json.loads(json.dumps(value, default=str))
