"""Fine-tuning: check the request, prepare the data, train, keep the result."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core import console
from lmflow_core.contracts import Engine, Template, TrainingJob, TrainingReport, Tuner, World
from lmflow_core.encoding import Encoder
from lmflow_core.errors import DataError, RequestError
from lmflow_core.examples import ExampleReader, Located
from lmflow_core.job import Request
from lmflow_core.opening import OpenModel, choose_template_for, open_model
from lmflow_core.output import CHECKPOINTS, RUN_FILE, check_output, remove_if_empty, write_json, written_aside
from lmflow_core.pictures import draw_losses
from lmflow_core.preparation import Counts, EncodedRows, Preparer
from lmflow_core.record import run_record
from lmflow_core.registry import Catalogue
from lmflow_core.settings import DataSettings, ModelSettings, OutputSettings, ResumeSettings, TrainingSettings
from lmflow_core.specs import TORCH


@dataclass(frozen=True)
class Finetuned:
    """What a finished run leaves: its folder and the content of its ``run.json``."""

    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class _Prepared:
    template_name: str | None
    template: Template | None
    rows: EncodedRows
    held_out: EncodedRows | None
    counts: Counts

    def description(self) -> dict[str, Any]:
        return {"fingerprint": self.rows.fingerprint(), **self.counts.as_dict()}


def finetune(request: Request, catalogue: Catalogue) -> Finetuned | None:
    """Carry out a training request. Returns None in the processes of a job that do not lead.

    Raises:
        LmflowError: the request, the data, the model or the training failed; nothing half-written is left.
    """
    output, resume = request.get(OutputSettings), request.get(ResumeSettings).resume
    check_output(output.output, overwrite=output.overwrite, resume=resume)
    engine: Engine = request.components["engine"].make(catalogue)
    with engine.start() as world:
        _check_alike(engine, "plugins", catalogue.plugins.digest())
        scaling = request.components.get("position_scaling")
        opened = open_model(request.get(ModelSettings), catalogue, scaling=scaling, runtime=TORCH)
        prepared = _prepare(request, opened, catalogue, world)
        _check_alike(engine, "data", prepared.rows.fingerprint())
        tuner = _tuner(request, catalogue)
        opened.load()
        tuner.prepare(opened.model, request.get(TrainingSettings).seed)
        report = _train(request, catalogue, opened, prepared, tuner, engine, world)
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


def _prepare(request: Request, opened: OpenModel, catalogue: Catalogue, world: World) -> _Prepared:
    data, training = request.get(DataSettings), request.get(TrainingSettings)
    accepted = request.components["objective"].provided.spec.examples
    examples = _examples(data.dataset, data, catalogue, accepted)
    held_out = _examples(training.eval_dataset, data, catalogue, accepted) if training.eval_dataset else None
    name, template = choose_template_for((*examples, *(held_out or ())), data.template, opened, catalogue)
    encoder = Encoder(opened.model.tokenizer, template)
    limit = data.max_length or opened.model.context_length
    preparer = Preparer(encoder, limit, data.length_policy)
    rows = preparer.prepare(console.progress(examples, "Preparing data", len(examples)))
    if world.leads:
        console.note(_summary(preparer.counts, name))
    measured = Preparer(encoder, limit, data.length_policy).prepare(held_out) if held_out else None
    return _Prepared(name, template, rows, measured, preparer.counts)


def _examples(
    paths: Sequence[Path], data: DataSettings, catalogue: Catalogue, accepted: Sequence[str]
) -> list[Located]:
    located = []
    for example in ExampleReader(catalogue, data.dataset_format).read(paths):
        if example.example.kind not in accepted:
            raise DataError(
                f"a {example.example.kind} example, but the objective learns from {', '.join(accepted)}",
                file=example.file,
                row=example.row,
            )
        located.append(example)
        if len(located) == data.max_train_samples:
            break
    return located


def _summary(counts: Counts, template: str | None) -> str:
    shortened = counts.dropped + counts.truncated + counts.split
    parts = [
        f"{counts.examples} examples, {counts.tokens} tokens, {counts.trained_tokens} of them trained on",
        f"template {template}" if template else "no template",
    ]
    if shortened:
        parts.append(f"too long: {counts.dropped} dropped, {counts.truncated} truncated, {counts.split} split")
    if counts.untrained:
        parts.append(f"{counts.untrained} left out for want of a trainable token")
    return "; ".join(parts)


def _train(
    request: Request,
    catalogue: Catalogue,
    opened: OpenModel,
    prepared: _Prepared,
    tuner: Tuner,
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
        data=prepared.rows,
        held_out=prepared.held_out,
        settings=_training_settings(request),
        attention=attention.implementation(request.get(ModelSettings).device),
        checkpoints=checkpoints,
        resume=request.get(ResumeSettings).resume,
    )
    try:
        report: TrainingReport = request.components["objective"].make(catalogue).train(job)
        return report
    finally:
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
    template = prepared.template
    record = run_record(request, catalogue.plugins, prepared.template_name, prepared.description(), report)
    with written_aside(folder) as aside:
        tuner.save(opened.model, aside, template.to_jinja() if template else None)
        draw_losses(report, aside / "loss.png")
        record["files"] = sorted([RUN_FILE, *(path.name for path in aside.iterdir())])
        write_json(aside / RUN_FILE, record)
    return Finetuned(folder, record)
