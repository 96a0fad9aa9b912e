"""Fine-tuning: check the request, prepare the data, train, keep the result."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.engine import Engine, World
from lmflow_core.contracts.objective import Objective, TrainingJob, TrainingReport
from lmflow_core.contracts.settings import DataSettings, ModelSettings, OutputSettings, ResumeSettings, TrainingSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tuner import Tuner
from lmflow_core.data.dataset import Dataset, DatasetMaker
from lmflow_core.data.store import EncodedRows
from lmflow_core.errors import OptionError, RequestError
from lmflow_core.files.output import CHECKPOINTS, RUN_FILE, check_output, remove_if_empty, write_json, written_aside
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.report.plots import draw_losses
from lmflow_core.workflows.record import run_record


@dataclass(frozen=True)
class Finetuned:
    """What a finished run leaves: its folder and the content of its ``run.json``."""

    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class _Prepared:
    data: Dataset
    held_out: EncodedRows | None

    def description(self) -> dict[str, Any]:
        return {"fingerprint": self.data.rows.fingerprint(), "key": self.data.key, **self.data.counts.as_dict()}


def finetune(request: Request, catalogue: Catalogue) -> Finetuned | None:
    """Carry out a training request. Returns None in the processes of a job that do not lead.

    Raises:
        LmflowError: the request, the data, the model or the training failed; nothing half-written is left.
    """
    output, resume = request.get(OutputSettings), request.get(ResumeSettings).resume
    _check_held_out(request)
    check_output(output.output, overwrite=output.overwrite, resume=resume)
    engine: Engine = request.components["engine"].make(catalogue)
    with engine.start() as world:
        _check_alike(engine, "plugins", catalogue.plugins.digest())
        scaling = request.components.get("position_scaling")
        opened = open_model(request.get(ModelSettings), catalogue, scaling=scaling, runtime=TORCH)
        tuner = _tuner(request, catalogue)
        objective: Objective = request.components["objective"].make(catalogue)
        _check_early(opened, tuner, objective)
        prepared = _prepare(request, opened, catalogue, world)
        _check_alike(engine, "data", prepared.data.rows.fingerprint())
        opened.load()
        tuner.prepare(opened.model, request.get(TrainingSettings).seed)
        report = _train(request, catalogue, opened, prepared, tuner, objective, engine, world)
        if not world.leads:
            return None
        return _keep(request, catalogue, opened, prepared, tuner, report)


def _check_alike(engine: Engine, what: str, digest: str) -> None:
    """Refuse to train when the processes of a job do not have the same plugins or data.

    Raises:
        RequestError: their digests differ.
    """
    digests = engine.gathered(digest)
    if len(set(digests)) > 1:
        found = ", ".join(f"rank {rank} {value}" for rank, value in enumerate(digests))
        raise RequestError(
            f"the processes of this job do not have the same {what} ({found}): make their machines alike"
        )


def _tuner(request: Request, catalogue: Catalogue) -> Tuner:
    tuner: Tuner = request.components["tuner"].make(catalogue)
    return tuner


def _check_early(opened: OpenModel, tuner: Tuner, objective: Objective) -> None:
    """Let the tuner and the objective refuse the model, and each other, before data and weights are read."""
    for part in (tuner, objective):
        check = getattr(part, "check", None)
        if check is not None:
            check(opened.model, tuner)


def _prepare(request: Request, opened: OpenModel, catalogue: Catalogue, world: World) -> _Prepared:
    data, training = request.get(DataSettings), request.get(TrainingSettings)
    accepted = request.components["objective"].provided.spec.examples
    made = DatasetMaker(data, opened, catalogue, seed=training.seed, accepted=accepted).make()
    if world.leads:
        console.note(_summary(made))
    if not training.eval_dataset:
        return _Prepared(made, made.held_out)
    measured = dataclasses.replace(
        data,
        dataset=training.eval_dataset,
        template=data.template or made.template_name,
        dataset_weights=(),
        eval_share=0.0,
        max_train_samples=None,
    )
    held_out = DatasetMaker(measured, opened, catalogue, accepted=accepted, purpose="measure").make().rows
    return _Prepared(made, held_out)


def _check_held_out(request: Request) -> None:
    training = request.get(TrainingSettings)
    if not (training.load_best_model or training.early_stopping_patience is not None):
        return
    if not (training.eval_dataset or request.get(DataSettings).eval_share):
        raise OptionError(
            "--load-best-model and --early-stopping-patience need held-out data: add --eval-dataset or --eval-share"
        )


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
    if made.held_out is not None:
        parts.append(f"{len(made.held_out)} examples held out")
    if made.from_cache:
        parts.append("encoded before")
    return "; ".join(parts)


def _train(
    request: Request,
    catalogue: Catalogue,
    opened: OpenModel,
    prepared: _Prepared,
    tuner: Tuner,
    objective: Objective,
    engine: Engine,
    world: World,
) -> TrainingReport:
    folder = request.get(OutputSettings).output
    checkpoints = folder / CHECKPOINTS
    if world.leads and not request.get(ResumeSettings).resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    attention = request.components["attention"].make(catalogue)
    job = TrainingJob(
        model=opened.model,
        tuner=tuner,
        engine=engine,
        world=world,
        data=prepared.data.rows,
        held_out=prepared.held_out,
        settings=_training_settings(request),
        attention=attention.implementation(request.get(ModelSettings).device),
        checkpoints=checkpoints,
        resume=request.get(ResumeSettings).resume,
    )
    try:
        return objective.train(job)
    finally:
        # The folder is the leader's alone: it may already be writing the result while others end their training.
        if world.leads:
            remove_if_empty(checkpoints)
            remove_if_empty(folder)


def _training_settings(request: Request) -> TrainingSettings:
    settings = request.get(TrainingSettings)
    if settings.lr is not None:
        return settings
    return dataclasses.replace(settings, lr=request.components["tuner"].provided.spec.learning_rate)


def _keep(
    request: Request,
    catalogue: Catalogue,
    opened: OpenModel,
    prepared: _Prepared,
    tuner: Tuner,
    report: TrainingReport,
) -> Finetuned:
    folder = request.get(OutputSettings).output
    template = prepared.data.template
    record = run_record(request, catalogue.plugins, prepared.data.template_name, prepared.description(), report)
    with written_aside(folder) as aside:
        tuner.save(opened.model, aside, template.to_jinja() if template else None)
        draw_losses(report, aside / "loss.png")
        record["files"] = sorted([RUN_FILE, *(path.name for path in aside.iterdir())])
        write_json(aside / RUN_FILE, record)
    return Finetuned(folder, record)
