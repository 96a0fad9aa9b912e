"""The benchmark ``tasks``: questions of your own, from files, over LMFlow's scorer and generator."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmflow_benchmarks.asked_model import AskedModel
from lmflow_benchmarks.marked import unmarked
from lmflow_benchmarks.options import TaskOptions
from lmflow_benchmarks.prompts import Examples, Prompts
from lmflow_benchmarks.questions import Question, read_question, task_rows
from lmflow_benchmarks.task_file import MULTIPLE_CHOICE, TaskFile, read_task_file
from lmflow_benchmarks.written import LIKENESS, answer_score, find_answer
from lmflow_core.api import BenchmarkReport, LanguageModel, OptionError, PromptAnswers, RequestError

_SEED = 42  # of answers; they are the likeliest tokens, so that it changes none
_Sample = dict[str, Any]


class TaskBenchmark:
    """Runs the tasks of some files; each figure is a mean over questions, with its standard error."""

    def __init__(self, options: TaskOptions) -> None:
        self._options = options

    def run(self, model: LanguageModel, answers: PromptAnswers) -> BenchmarkReport:
        """Measure a loaded model.

        Raises:
            RequestError: a task or its data is not what it must be, or the model cannot be asked so.
        """
        asked = AskedModel(model, answers, _SEED, "tasks")
        tasks = _tasks(self._options)
        runs = [(task, TaskRun(task, asked, self._options)) for task in tasks]  # what is wrong is told before any work
        samples = [(task, run.samples()) for task, run in runs]
        metrics = {name: value for task, found in samples for name, value in _metrics(task, found)}
        return BenchmarkReport(metrics, samples=[sample for _, found in samples for sample in found])


def _tasks(options: TaskOptions) -> list[TaskFile]:
    if not options.task_file:
        raise OptionError("--benchmark tasks needs --task-file: YAML or JSON files, each with a task")
    tasks: dict[str, TaskFile] = {}
    for path in options.task_file:
        task = read_task_file(path)
        if task.name in tasks:
            raise RequestError(
                f"{path} and {tasks[task.name].path} are both called {task.name!r}: give one of them another name"
            )
        tasks[task.name] = task
        for metric in task.metrics:
            if metric in LIKENESS:
                LIKENESS[metric]("a", "a")  # whether its library is there
    return list(tasks.values())


class TaskRun:
    """One task, with all its questions read.

    Raises:
        RequestError: the task's data is not what it must be, or has too few examples.
    """

    def __init__(self, task: TaskFile, model: AskedModel, options: TaskOptions) -> None:
        self._task = task
        self._model = model
        self._prompts = Prompts(task, model, options)
        rows = task_rows(task.data)
        examples = Examples(task, rows, options)
        self._asked = [(read_question(task, row), examples.of(row)) for row in rows[: options.limit]]

    def samples(self) -> list[_Sample]:
        """Return what came of each question.

        Raises:
            RequestError: the model cannot be asked so.
        """
        return list(self._chosen() if self._task.kind == MULTIPLE_CHOICE else self._written())

    def _chosen(self) -> Iterator[_Sample]:
        texts = [self._texts(question, examples) for question, examples in self._asked]
        pairs = []
        for (question, _), ways in zip(self._asked, texts, strict=True):
            for context, continuation in ways:
                pairs.append(self._model.pair(context, continuation))
                try:
                    self._model.check(pairs[-1][1], continuation)
                except RequestError as error:
                    raise RequestError(f"{question.row.file}, row {question.row.number}: {error}") from error
        likelihoods = iter(self._model.likelihoods(pairs))
        for number, ((question, _), ways) in enumerate(zip(self._asked, texts, strict=True)):
            found = [next(likelihoods) for _ in ways]
            scores = choice_scores(self._task.metrics, question, [likelihood for likelihood, _ in found])
            yield self._sample(number, scores, question.right, ways, [list(each) for each in found])

    def _texts(self, question: Question, examples: Sequence[Question]) -> list[tuple[str, str]]:
        contexts = {asked: self._prompts.context(asked, examples) for asked, _ in question.ways}
        return [(contexts[asked], self._prompts.separator + choice) for asked, choice in question.ways]

    def _written(self) -> Iterator[_Sample]:
        task = self._task
        contexts = [self._prompts.context(question.ways[0][0], examples) for question, examples in self._asked]
        texts = self._model.written(contexts, task.stops, task.max_new_tokens)
        how = {"until": list(task.stops), "max_gen_toks": task.max_new_tokens, "do_sample": False}
        for number, ((question, _), context, text) in enumerate(zip(self._asked, contexts, texts, strict=True)):
            answer = find_answer(task.find, task.match, text)
            targets = question.targets
            scores = {metric: answer_score(metric, answer, targets, task.normalize) for metric in task.metrics}
            target = targets[0] if len(targets) == 1 else list(targets)
            yield {**self._sample(number, scores, target, [(context, how)], [answer]), "written": text}

    def _sample(
        self, number: int, scores: Mapping[str, float], target: Any, asked: Sequence[tuple[str, Any]], found: list[Any]
    ) -> _Sample:
        """Return what is kept of a question, in the form of the benchmark ``lm-eval``."""
        plain = [[unmarked(part) if isinstance(part, str) else part for part in each] for each in asked]
        return {
            "task": self._task.name,
            "id": number,
            "scores": dict(scores),
            "target": target,
            "asked": plain,
            "found": found,
        }


def choice_scores(metrics: Sequence[str], question: Question, likelihoods: Sequence[float]) -> dict[str, float]:
    """Return by each metric whether the likeliest choice is the right one.

    ``acc`` takes log-likelihoods as they are, ``acc_norm`` divides them by the characters of the choice and
    ``acc_bytes`` by its bytes. Of choices that are as likely as each other the first counts.
    """
    lengths = {
        "acc": [1 for _ in question.choices],
        "acc_norm": [len(choice) for choice in question.choices],
        "acc_bytes": [len(choice.encode()) for choice in question.choices],
    }
    scores = {}
    for metric in metrics:
        rated = [likelihood / length for likelihood, length in zip(likelihoods, lengths[metric], strict=True)]
        scores[metric] = float(rated.index(max(rated)) == question.right)
    return scores


def _metrics(task: TaskFile, samples: Sequence[_Sample]) -> Iterator[tuple[str, float]]:
    for metric in task.metrics:
        scores = [sample["scores"][metric] for sample in samples]
        yield f"{task.name} {metric}", statistics.fmean(scores)
        if len(scores) > 1:  # of one question nothing tells it
            yield f"{task.name} {metric} standard error", statistics.stdev(scores) / math.sqrt(len(scores))
