"""Evaluation by rewards: what a model's own answers to the prompts of some data are worth."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from lmflow_core.config.request import Request
from lmflow_core.contracts.answering import AnsweringSettings
from lmflow_core.contracts.decoder import BatchLimits
from lmflow_core.contracts.examples import Prompt
from lmflow_core.contracts.reward import AnsweredPrompt
from lmflow_core.data.asked import as_prompt
from lmflow_core.data.examples import ExampleReader, Located
from lmflow_core.errors import DataError, PromptTooLongError
from lmflow_core.files.atomic import atomic_text
from lmflow_core.generation.answers import Answer
from lmflow_core.generation.chat_model import LoadedChatModel, open_chat_model
from lmflow_core.generation.second_models import Models
from lmflow_core.models.rewards import Rewards
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.answer_figures import AnswerReport, ScoredAnswer, figures
from lmflow_core.workflows.batch import derived_seed
from lmflow_core.workflows.divergence import Reference, is_plain

_SCORED_AT_ONCE = 256


def evaluate_answers(request: Request, catalogue: Catalogue) -> AnswerReport:
    """Answer the prompts, score the answers, and keep them where that is asked for.

    Raises:
        LmflowError: the data, the model, a reward or the reference cannot be used.
    """
    settings = request.get(AnsweringSettings)
    rewards = Rewards(request.weighted["reward"], catalogue)
    prompts = [*_prompts(settings, rewards, catalogue)]
    model = _sampling(open_chat_model(request, catalogue), settings)
    rewards.prepare(Models(catalogue), model.model)
    asked, too_long = _asked(model, prompts, settings)
    reference = _reference(settings, model, asked, catalogue)
    answers = [*console.progress(_written(model, asked, settings), "Answering", len(asked))]
    _score(answers, rewards)
    if reference is not None:
        reference.measure(answers)
    if settings.samples_file is not None:
        _keep(answers, settings.samples_file)
    return figures(
        answers,
        too_long=too_long,
        at_least=rewards.maximum if settings.reward_at_least is None else settings.reward_at_least,
        unbiased=None if reference is None else is_plain(model.decoding),
    )


def _prompts(settings: AnsweringSettings, rewards: Rewards, catalogue: Catalogue) -> Iterator[tuple[Located, Prompt]]:
    """Yield the prompts of the data; answers to each can be scored.

    Raises:
        DataError: an example has no prompt, or its row lacks what a reward needs.
    """
    found = ExampleReader(catalogue, settings.dataset_format).read(settings.dataset)
    for located in itertools.islice(found, settings.max_prompts):
        prompt = as_prompt(located)
        try:
            if prompt is None or not prompt.messages:
                raise ValueError(
                    f"a {located.example.kind} example has no prompt to answer: give prompts alone, or conversations"
                )
            rewards.check(prompt)
        except ValueError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error
        yield located, prompt


def _sampling(model: LoadedChatModel, settings: AnsweringSettings) -> LoadedChatModel:
    """Return the model, set so that several answers to a prompt can differ."""
    greedy = getattr(model.decoding.options, "temperature", None) == 0
    if settings.samples > 1 and greedy:
        console.note("several answers to a prompt are sampled at temperature 1, as the likeliest would be all the same")
        return model.changed(temperature=1.0)
    return model


def _asked(
    model: LoadedChatModel, prompts: Sequence[tuple[Located, Prompt]], settings: AnsweringSettings
) -> tuple[list[tuple[int, int, Prompt, Answer]], int]:
    """Return the answers to be written, each with its prompt and both their numbers; and how many do not fit.

    The first answer to a prompt has the seed that ``lmflow generate`` gives it.
    """
    asked: list[tuple[int, int, Prompt, Answer]] = []
    too_long = 0
    for index, (located, prompt) in enumerate(prompts):
        first = derived_seed(model.settings.seed, index)
        seeds = [first, *(derived_seed(first, number) for number in range(1, settings.samples))]
        try:
            for number, seed in enumerate(seeds):
                asked.append((index, number, prompt, _answer(model, prompt, seed)))
        except PromptTooLongError:
            too_long += 1
        except ValueError as error:
            problem = f"the template cannot render this conversation: {error}"
            raise DataError(problem, file=located.file, row=located.row) from error
    if not prompts:
        raise DataError("the data holds no prompts")
    if not asked:
        raise DataError(f"no prompt can be answered: all {too_long} are longer than the context of the model")
    return asked, too_long


def _answer(model: LoadedChatModel, prompt: Prompt, seed: int) -> Answer:
    opening = [] if prompt.messages[0].role == "system" else model.opening()
    seeded = replace(model, settings=replace(model.settings, seed=seed))
    return seeded.answer([*opening, *prompt.messages], prompt.tools)


def _reference(
    settings: AnsweringSettings,
    model: LoadedChatModel,
    asked: Sequence[tuple[int, int, Prompt, Answer]],
    catalogue: Catalogue,
) -> Reference | None:
    if settings.reference_model is None:
        return None
    runtime = model.decoding.provided.spec.runtime
    reference = Reference(settings.reference_model, model.model, Models(catalogue, runtime))
    reference.check([answer.request.prompt for _, number, _, answer in asked if number == 0])
    return reference


def _written(
    model: LoadedChatModel, asked: Sequence[tuple[int, int, Prompt, Answer]], settings: AnsweringSettings
) -> Iterator[ScoredAnswer]:
    batch = model.open_batch(BatchLimits(answers=settings.batch_size))
    answers = batch.write(answer for _, _, _, answer in asked)
    for (index, number, prompt, _), answer in zip(asked, answers, strict=True):
        done = cast(Answer, answer)
        written = done.result()
        yield ScoredAnswer(index, number, AnsweredPrompt(prompt, written.text), done.request.prompt, written)


def _score(answers: Sequence[ScoredAnswer], rewards: Rewards) -> None:
    for start in range(0, len(answers), _SCORED_AT_ONCE):
        part = answers[start : start + _SCORED_AT_ONCE]
        columns = rewards.scores([answer.asked for answer in part])
        for at, (answer, reward) in enumerate(zip(part, rewards.summed(columns), strict=True)):
            answer.reward = reward
            answer.rewards = {name: column[at] for name, column in columns.items()}


def _keep(answers: Sequence[ScoredAnswer], file: Path) -> None:
    with atomic_text(file) as stream:
        stream.writelines(json.dumps(answer.row(), ensure_ascii=False) + "\n" for answer in answers)
