"""Fine-tuning: check the request, prepare the data, train, keep the result."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmflow_core.config.request import Request
from lmflow_core.contracts.attention import Attention
from lmflow_core.contracts.engine import Engine, World
from lmflow_core.contracts.model import LanguageModel, LoadPlan
from lmflow_core.contracts.objective import Objective, TrainingJob, TrainingReport, TrainingSetup
from lmflow_core.contracts.recipe import Recipe
from lmflow_core.contracts.settings import DataSettings, ModelSettings, OutputSettings, ResumeSettings, TrainingSettings
from lmflow_core.contracts.spec import TORCH
from lmflow_core.contracts.tuner import Destination
from lmflow_core.errors import OptionError, RequestError
from lmflow_core.files.exclusive import exclusive
from lmflow_core.files.output import CHECKPOINTS, RUN_FILE, atomic_folder, check_output, remove_if_empty, write_json
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.models.tasks import check_task
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import returned
from lmflow_core.report.plots import draw_training
from lmflow_core.templates.choosing import jinja_for
from lmflow_core.workflows.model_card import CardFacts, hub_names, library_of, write_card
from lmflow_core.workflows.recipe import recipe
from lmflow_core.workflows.record import run_record
from lmflow_core.workflows.services import TrainingServices
from lmflow_core.workflows.training_data import PreparedData, prepare_data, rewards_of


@dataclass(frozen=True)
class Finetuned:
    """What a finished run leaves: its folder and the content of its ``run.json``."""

    folder: Path
    record: dict[str, Any]


def finetune(request: Request, catalogue: Catalogue) -> Finetuned | None:
    """Carry out a training request. Returns None in the processes of a job that are not the main one.

    Raises:
        LmflowError: the request, the data, the model or the training failed; nothing half-written is left.
    """
    output, resume = request.get(OutputSettings), request.get(ResumeSettings)
    _check_validation(request)
    _check_rewards(request)
    check_output(output.output, overwrite=output.overwrite, resume=resume.resumes)
    engine: Engine = request.components["engine"].make(catalogue)
    with (
        returned(engine.start(), AbstractContextManager, engine, "start") as world,
        exclusive(output.output) if returned(world, World, engine, "start").is_main else nullcontext(),
    ):
        # Another run may have ended between the first look and this one's turn.
        check_output(output.output, overwrite=output.overwrite, resume=resume.resumes)
        _check_alike(engine, "plugins", catalogue.plugins.digest())
        scaling = request.components.get("position_scaling")
        opened = open_model(request.get(ModelSettings), catalogue, scaling=scaling, runtime=TORCH)
        services = TrainingServices(catalogue, engine)
        setup = _setup(request, catalogue, opened, engine, services)
        objective: Objective = request.components["objective"].make(catalogue)
        attention = _plan(request, catalogue, setup, objective)
        setup.tuner.check(setup.model)
        objective.check(setup)
        rewards = rewards_of(request, catalogue)
        prepared = prepare_data(request, opened, catalogue, world)
        _check_alike(engine, "data", prepared.data.rows.fingerprint())
        services.use_template(prepared.data.template, prepared.encoder)
        opened.load()
        services.use_rewards(rewards, opened.model)
        setup.tuner.prepare(setup.model, setup.settings.seed)
        kept = recipe(
            request,
            setup.settings,
            catalogue.plugins,
            (setup.model, *services.opened),
            prepared.data.rows,
            prepared.validation,
            world,
        )
        job = _job(request, setup, prepared, world, attention, kept)
        report = _train(job, objective)
        return _keep(request, catalogue, opened, job, prepared, report)


def _check_alike(engine: Engine, what: str, digest: str) -> None:
    """Refuse to train when the processes of a job do not have the same plugins or data.

    Raises:
        RequestError: their digests differ.
    """
    digests = engine.all_gather(digest)
    if len(set(digests)) > 1:
        found = ", ".join(f"rank {rank} {value}" for rank, value in enumerate(digests))
        raise RequestError(
            f"the processes of this job do not have the same {what} ({found}): make their machines alike"
        )


def _setup(
    request: Request, catalogue: Catalogue, opened: OpenModel, engine: Engine, services: TrainingServices
) -> TrainingSetup[LanguageModel]:
    settings = request.get(TrainingSettings)
    if settings.lr is None:
        settings = dataclasses.replace(settings, lr=learning_rate(request))
    return TrainingSetup(
        model=opened.model,
        tuner=request.components["tuner"].make(catalogue),
        engine=engine,
        optimizer=request.components["optimizer"].make(catalogue),
        settings=settings,
        services=services,
    )


def learning_rate(request: Request) -> float:
    """Return the peak learning rate where the user gives none: the optimizer's if it has one, or the tuner's."""
    of_optimizer: float | None = request.components["optimizer"].provided.spec.learning_rate
    of_tuner: float = request.components["tuner"].provided.spec.learning_rate
    return of_tuner if of_optimizer is None else of_optimizer


def _plan(request: Request, catalogue: Catalogue, setup: TrainingSetup[LanguageModel], objective: Objective) -> str:
    """Let everybody who has a say add to the load plan, and the model refuse it; return the attention of the run."""
    attention: Attention = request.components["attention"].make(catalogue)
    plan, chosen = setup.model.plan, request.components["objective"]
    settings = setup.settings
    implementation = attention.implementation(plan.device)
    plan = dataclasses.replace(plan, attention=implementation, seed=settings.seed, parts=settings.train_parts)
    for part in (setup.tuner, objective, setup.engine):
        plan = returned(part.plan(plan), LoadPlan, part, "plan")
    setup.model.accept(plan)
    check_task(setup.model, chosen.provided.spec.tasks, f"--objective {chosen.name}")
    assert plan.attention is not None
    return plan.attention


def _check_validation(request: Request) -> None:
    training = request.get(TrainingSettings)
    if not (training.load_best_model or training.early_stopping_patience is not None):
        return
    if not (training.eval_dataset or request.get(DataSettings).eval_share):
        raise OptionError(
            "--load-best-model and --early-stopping-patience need validation data: add --eval-dataset or --eval-share"
        )


def _check_rewards(request: Request) -> None:
    """Refuse rewards that nothing asks for, and an objective without the rewards that it asks for."""
    objective = request.components["objective"]
    if objective.provided.spec.scores and not request.weighted.get("reward"):
        raise OptionError(f"--objective {objective.name} scores answers: add --reward NAME")
    if request.weighted.get("reward") and not objective.provided.spec.scores:
        raise OptionError(f"--reward: --objective {objective.name} scores no answers; leave it out")


def _job(
    request: Request,
    setup: TrainingSetup[LanguageModel],
    prepared: PreparedData,
    world: World,
    attention: str,
    kept: Recipe,
) -> TrainingJob[LanguageModel]:
    checkpoints, resume = request.get(OutputSettings).output / CHECKPOINTS, request.get(ResumeSettings)
    if world.is_main and not resume.resumes:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return TrainingJob(
        model=setup.model,
        tuner=setup.tuner,
        engine=setup.engine,
        optimizer=setup.optimizer,
        settings=setup.settings,
        services=setup.services,
        world=world,
        data=prepared.data.rows,
        validation=prepared.validation,
        attention=attention,
        checkpoints=checkpoints,
        resume=resume.resumes,
        resume_anyway=resume.resume_anyway,
        recipe=kept,
    )


def _train(job: TrainingJob[LanguageModel], objective: Objective) -> TrainingReport:
    try:
        report: TrainingReport = returned(objective.train(job), TrainingReport, objective, "train")
        return report
    finally:
        # The folder is the main process's alone: it may be writing the result while others end their training.
        if job.world.is_main:
            remove_if_empty(job.checkpoints)


def _keep(
    request: Request,
    catalogue: Catalogue,
    opened: OpenModel,
    job: TrainingJob[LanguageModel],
    prepared: PreparedData,
    report: TrainingReport,
) -> Finetuned | None:
    folder, template = request.get(OutputSettings).output, prepared.data.template
    jinja = jinja_for(template, job.model) if template else None
    weights = job.engine.full_weights(job.model)
    if not job.world.is_main:
        job.tuner.save(job.model, Destination(folder, jinja, is_main=False, weights=weights))
        return None
    record = run_record(request, catalogue.plugins, prepared.data.template_name, prepared.description(), report)
    record["learning_rate"] = job.settings.lr
    record["hub"] = hub_names(opened, request.get(DataSettings).dataset)
    with atomic_folder(folder) as aside:
        job.tuner.save(job.model, Destination(aside, jinja, weights=weights))
        draw_training(report, aside / "loss.png")
        _write_card(aside, opened, record, chats=jinja is not None)
        record["files"] = sorted([RUN_FILE, *(path.name for path in aside.iterdir())])
        write_json(aside / RUN_FILE, record)
    return Finetuned(folder, record)


def _write_card(folder: Path, opened: OpenModel, record: dict[str, Any], *, chats: bool) -> None:
    """Write the model card of a result that a plain library loads."""
    library = library_of(folder)
    if library is None:
        return
    model = opened.model
    made = "adapter" if library == "peft" else "finetuned"
    name, told = record["hub"]["model"], record["versions"]
    write_card(folder, CardFacts(model.reference, name, model.plan.task, library, made, chats, record, told))
