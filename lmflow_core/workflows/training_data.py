"""The data of a training run, encoded for its model, and the rewards by which answers to its prompts are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.engine import World
from lmflow_core.contracts.settings import DataSettings, TrainingSettings
from lmflow_core.data.asked import as_prompt
from lmflow_core.data.dataset import Dataset, DatasetMaker
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.examples import Located
from lmflow_core.data.selection import selected
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import DataError
from lmflow_core.models.opening import OpenModel
from lmflow_core.models.rewards import Rewards
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console


@dataclass(frozen=True)
class PreparedData:
    """What is trained on, what the loss is measured on besides, and what encodes further examples."""

    data: Dataset
    validation: EncodedRows | None
    encoder: Encoder

    def description(self) -> dict[str, Any]:
        """Return what the record of a run tells of the data."""
        return {"fingerprint": self.data.rows.fingerprint(), "key": self.data.key, **self.data.counts.as_dict()}


def prepare_data(request: Request, opened: OpenModel, catalogue: Catalogue, world: World) -> PreparedData:
    """Return the data of a run, encoded.

    Raises:
        LmflowError: a row cannot be used, or there is no template for it.
    """
    data, training = request.get(DataSettings), request.get(TrainingSettings)
    accepted = request.components["objective"].provided.spec.examples
    maker = DatasetMaker(data, opened, catalogue, seed=training.seed, accepted=accepted)
    made = maker.make()
    if world.is_main:
        console.note(_summary(made))
    if not training.eval_dataset:
        return PreparedData(made, made.validation, maker.encoder)
    measured = dataclasses.replace(_validation(request), template=data.template or made.template_name)
    validation = DatasetMaker(measured, opened, catalogue, accepted=accepted, purpose="measure").make().rows
    return PreparedData(made, validation, maker.encoder)


def _validation(request: Request) -> DataSettings:
    """Return the settings of the validation data, all of which is measured."""
    dataset = request.get(TrainingSettings).eval_dataset
    unsampled: dict[str, Any] = {"dataset_weights": (), "eval_share": 0.0, "max_train_samples": None}
    return dataclasses.replace(request.get(DataSettings), dataset=dataset, **unsampled)


def rewards_of(request: Request, catalogue: Catalogue) -> Rewards:
    """Return the rewards of a run; every prompt, those for validation too, can be scored by them.

    Raises:
        DataError: a row lacks what a reward needs.
    """
    rewards = Rewards(request.weighted.get("reward", ()), catalogue)
    for located in _prompts(request, catalogue) if rewards else ():
        prompt = as_prompt(located)
        try:
            assert prompt is not None, "an objective that scores learns from prompts"
            rewards.check(prompt)
        except ValueError as error:
            raise DataError(str(error), file=located.file, row=located.row) from error
    return rewards


def _prompts(request: Request, catalogue: Catalogue) -> Iterator[Located]:
    accepted = request.components["objective"].provided.spec.examples
    data, training = request.get(DataSettings), request.get(TrainingSettings)
    yield from selected(data, catalogue, training.seed, accepted)
    if data.eval_share:
        yield from selected(data, catalogue, training.seed, accepted, validation=True)
    if training.eval_dataset:
        yield from selected(_validation(request), catalogue, training.seed, accepted)


def _summary(made: Dataset) -> str:
    counts, template = made.counts, made.template_name
    shortened = counts.dropped + counts.truncated + counts.split
    parts = [
        f"{counts.examples} examples, {counts.tokens} tokens, {counts.trained_tokens} of them trained on",
        f"template {template}" if template else "no template",
    ]
    if shortened:
        parts.append(f"too long: {counts.dropped} dropped, {counts.truncated} truncated, {counts.split} split")
    if counts.untrained:
        parts.append(f"{counts.untrained} left out for want of a trainable token")
    if made.validation is not None:
        parts.append(f"{len(made.validation)} for validation")
    if made.from_cache:
        parts.append("encoded before")
    return "; ".join(parts)
