"""Options of the benchmarks; no import of anything heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmflow_core.api import option


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """How questions are asked, whatever runs the tasks."""

    num_fewshot: int | None = option(
        None, help="Examples before each question; what the task says when left out.", minimum=0
    )
    limit: int | None = option(None, help="Ask only this many questions of each task.", minimum=1)
    apply_chat_template: bool = option(False, help="Ask by the model's own chat template.")
    fewshot_as_multiturn: bool = option(
        True, help="With the chat template, show each example as a turn of its own instead of all in the question."
    )
    system_instruction: str | None = option(None, help="System prompt of every question.")
    fewshot_seed: int = option(1234, help="Seed by which tasks choose examples; 1234 is the harness's own.", minimum=0)


@dataclass(frozen=True, kw_only=True)
class HarnessOptions(QuestionOptions):
    """Which tasks of lm-evaluation-harness are run, and how they are asked."""

    tasks: tuple[str, ...] = option((), help="Tasks, groups or tags of lm-evaluation-harness; several with commas.")
    include_path: Path | None = option(None, help="Folder of YAML files with tasks of your own.")
    answer_seed: int = option(42, help="Seed of answers that a task has sampled.", minimum=0, maximum=2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class TaskOptions(QuestionOptions):
    """Which tasks of your own are run, and how they are asked."""

    task_file: tuple[Path, ...] = option((), help="YAML or JSON files, each with a task; several with commas.")
