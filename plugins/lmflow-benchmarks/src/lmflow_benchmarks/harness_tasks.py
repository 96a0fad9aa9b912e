"""Tasks of lm-evaluation-harness, found by name: those that come with it, and those of a folder of YAML files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from lmflow_benchmarks.options import HarnessOptions
from lmflow_core.api import LmflowError, RequestError, printable

_NAMES_TOLD = 5
_NO_QUESTIONS = "its data has no questions"
# What the library of data sets says of files without rows and of a choice of rows that leaves none. Of an empty JSONL
# file it says nothing but StopIteration.
_EMPTY = re.compile(r"corresponds to no data|out of (bounds|range) for (dataset of )?size 0")


def load_tasks(options: HarnessOptions) -> Any:
    """Return the tasks and groups that some options name, with their data, as the harness holds them.

    Raises:
        RequestError: there is no such task, it cannot be used, its data cannot be had, or it asks nothing.
    """
    if not options.tasks:
        raise RequestError("--benchmark lm-eval needs --tasks: names of lm-evaluation-harness, or of --include-path")
    loaded = _loaded(_manager(options.tasks, options.include_path), options.tasks)
    for name, task in loaded["tasks"].items():
        if not len(task.eval_docs):
            raise RequestError(f"--tasks {name}: {_NO_QUESTIONS}")
        if getattr(task, "UNSAFE_CODE", False):
            raise RequestError(f"--tasks {name}: it runs code that the model writes, which is not done here")
        if getattr(task, "MULTIMODAL", False):
            raise RequestError(f"--tasks {name}: it shows images, which is not done here")
        _check_patterns(name, task.get_config("filter_list") or ())
        task.set_config(key="num_fewshot", value=options.examples(task.get_config("num_fewshot")))
        task.set_fewshot_seed(seed=options.fewshot_seed)
    return loaded


def _check_patterns(name: str, filters: Sequence[Mapping[str, Any]]) -> None:
    """Check the regular expressions that find answers: the harness would do so when all have been written."""
    steps = [step for each in filters if isinstance(each, Mapping) for step in each["filter"]]
    for key, pattern in (pair for step in steps for pair in step.items()):
        if key.endswith("pattern") and isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                raise RequestError(f"--tasks {name}: {key} {pattern!r} is no regular expression: {error}") from error


def _manager(names: Sequence[str], folder: Path | None) -> TaskManager:
    """Return where all names are found. To read the harness's own files takes long, so those of the folder go first."""
    if folder is not None:
        if not folder.is_dir():
            raise RequestError(f"--include-path {folder} is no folder")
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if all(name in own.task_index for name in names):
            return own
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.task_index:
            raise RequestError(f"--tasks {name}: {_unknown(name, manager.task_index)}")
    return manager


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), _NAMES_TOLD)
    return "lm-evaluation-harness has no such task" + (f": did you mean {' or '.join(near)}?" if near else "")


def _loaded(manager: TaskManager, names: Sequence[str]) -> Any:
    try:
        return manager.load(list(names))
    except LmflowError:
        raise
    except Exception as error:  # files of others: what is wrong in them comes as any kind
        if any(isinstance(each, StopIteration) or _EMPTY.search(str(each)) for each in _chain(error)):
            raise RequestError(f"--tasks {','.join(names)}: {_NO_QUESTIONS}") from error
        causes = [printable(f"{type(each).__name__}: {each}", 300) for each in _chain(error)]
        raise RequestError(
            f"--tasks {','.join(names)} cannot be loaded: {'; '.join(causes[:2])}. Its description or its data is at "
            "fault; the data of tasks that come with the harness is fetched from a hub, which needs a network"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
