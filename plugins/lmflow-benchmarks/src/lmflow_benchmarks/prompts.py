"""What stands before a question: instructions and examples, as plain text or in the turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from lmflow_benchmarks.asked_model import AskedModel
from lmflow_benchmarks.options import TaskOptions
from lmflow_benchmarks.questions import Question, read_question, task_rows
from lmflow_benchmarks.task_file import TaskFile
from lmflow_core.api import Message, RequestError, Row


class Examples:
    """Chooses the examples of questions, which are to be asked for in the order of the data.

    By ``random`` they are those that lm-evaluation-harness chooses by the same seed.

    Raises:
        RequestError: there are fewer than are asked for.
    """

    def __init__(self, task: TaskFile, questions: Sequence[Row], options: TaskOptions) -> None:
        self._task = task
        self._count = options.examples(task.num_fewshot)
        self._random = Random(options.fewshot_seed)
        self._mixed = task.examples is None
        self._rows: Sequence[Row] = ()
        if self._count:
            self._rows = questions if task.examples is None else task_rows(task.examples)
            self._check()

    def _check(self) -> None:
        spare = len(self._rows) - self._mixed
        if self._count > spare:
            besides = " besides the question" if self._mixed else ""
            raise RequestError(
                f"{self._task.path}: {self._count} examples are asked for, and {self._rows[0].file} has "
                f"{spare}{besides}: ask for fewer by --num-fewshot"
            )

    def of(self, question: Row) -> list[Question]:
        """Return the examples that a question is shown with, which it is never one of itself.

        Raises:
            RequestError: the rows that differ from the question are too few.
        """
        return [read_question(self._task, row) for row in self._chosen(question)] if self._count else []

    def _chosen(self, question: Row) -> Sequence[Row]:
        others = [row for row in self._rows if row.value != question.value]
        if len(others) < self._count:
            raise RequestError(
                f"{question.file}, row {question.number}: {self._count} examples are asked for, and only {len(others)} "
                "rows differ from the question"
            )
        if self._task.example_choice == "first":
            return others[: self._count]
        if not self._mixed and len(others) == len(self._rows):
            return self._random.sample(self._rows, self._count)
        drawn = self._random.sample(self._rows, min(self._count + 1, len(self._rows)))
        drawn = [row for row in drawn if row.value != question.value][: self._count]
        return drawn if len(drawn) == self._count else self._random.sample(others, self._count)


class Prompts:
    """Puts contexts together from questions and their examples."""

    def __init__(self, task: TaskFile, model: AskedModel, options: TaskOptions) -> None:
        self._task = task
        self._model = model
        self._options = options

    @property
    def separator(self) -> str:
        """What stands between a context and an answer; a chat template has its own."""
        return "" if self._options.apply_chat_template else self._task.separator

    def context(self, asked: str, examples: Sequence[Question]) -> str:
        """Return what a model reads before it answers.

        Raises:
            RequestError: there is no chat template where one is asked for, or it refuses the conversation.
        """
        task = self._task
        turns = [example.ways[example.right] for example in examples]
        plain = "".join(f"{prompt}{task.separator}{answer}{task.example_separator}" for prompt, answer in turns) + asked
        if not self._options.apply_chat_template:
            return self._system() + plain
        messages = [Message("system", self._system())] if self._system() else []
        if self._options.fewshot_as_multiturn:
            for prompt, answer in turns:
                messages += [Message("user", prompt), Message("assistant", answer)]
            messages.append(Message("user", asked))
        else:
            messages.append(Message("user", plain))
        return self._model.rendered(messages)

    def _system(self) -> str:
        """Return the system prompt with the task's description, and white space between the two."""
        instruction, description = self._options.system_instruction or "", self._task.description
        touch = bool(instruction and description) and not (instruction[-1].isspace() or description[0].isspace())
        return instruction + (self._task.example_separator if touch else "") + description
