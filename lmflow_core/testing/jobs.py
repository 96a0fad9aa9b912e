"""Training jobs put together by hand, for tests of tuners, objectives and the trainer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmflow_core.contracts.attention import AttentionSpec
from lmflow_core.contracts.engine import EngineSpec, World
from lmflow_core.contracts.objective import TrainingJob
from lmflow_core.contracts.optimizer import OptimizerSpec
from lmflow_core.contracts.settings import ModelSettings, TrainingSettings
from lmflow_core.contracts.tokens import EncodedExample, EncodedSequence
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.data.encoding import Encoder
from lmflow_core.data.store import EncodedRows
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.workflows.services import TrainingServices


def single(ids: Sequence[int], labels: Sequence[int] | None = None) -> EncodedExample:
    """Return an example of one sequence; all its tokens are labelled when no labels are given."""
    return EncodedExample((EncodedSequence(ids, ids if labels is None else labels),))


def rows_of(examples: Iterable[EncodedExample]) -> EncodedRows:
    """Return examples as the data of a job, in memory."""
    rows = EncodedRows()
    for example in examples:
        rows.append(example)
    return rows


def make_job(
    model: Path | str,
    checkpoints: Path,
    settings: TrainingSettings,
    data: Sequence[EncodedExample],
    *,
    tuner: Any = None,
    optimizer: Any = None,
    objective: Any = None,
    validation: Sequence[EncodedExample] | None = None,
    attention: str = "sdpa",
    dtype: str = "auto",
) -> TrainingJob[Any]:
    """Return a job of one process on a CPU whose model is loaded and prepared.

    Args:
        model: a reference that ``--model`` takes.
        checkpoints: the folder of checkpoints; the job resumes from it when it exists.
        settings: ``lr`` must be set.
        data: what is trained on.
        tuner: the tuner; full fine-tuning when None.
        optimizer: the optimizer; AdamW when None.
        objective: has a say in how the weights are read; nothing when None.
        validation: what the loss is measured on.
        attention: the name of the attention.
        dtype: number format of the weights, as ``--dtype`` takes it.
    """
    catalogue = Catalogue.discover()
    opened = open_model(ModelSettings(model=str(model), device="cpu", dtype=dtype), catalogue)
    tuner = tuner or catalogue.of(TunerSpec).load("full")(None)
    implementation = catalogue.of(AttentionSpec).load(attention)(None).implementation("cpu")
    plan = tuner.plan(replace(opened.model.plan, seed=settings.seed, parts=settings.train_parts))
    opened.model.accept(plan if objective is None else objective.plan(plan))
    tuner.check(opened.model)
    opened.load()
    tuner.prepare(opened.model, settings.seed)
    engine = catalogue.of(EngineSpec).load("local")(None)
    services = TrainingServices(catalogue, engine)
    services.use_template(None, Encoder(opened.model.tokenizer, None))
    return TrainingJob(
        model=opened.model,
        tuner=tuner,
        engine=engine,
        optimizer=optimizer or catalogue.of(OptimizerSpec).load("adamw")(None),
        settings=settings,
        services=services,
        world=World(),
        data=rows_of(data),
        validation=None if validation is None else rows_of(validation),
        attention=implementation,
        checkpoints=checkpoints,
        resume=checkpoints.exists(),
    )
