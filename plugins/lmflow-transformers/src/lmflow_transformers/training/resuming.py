"""Going on from a checkpoint: which one, whether it belongs to this run, and what of the new request counts."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from transformers import TrainerState, TrainingArguments

from lmflow_core.api import Recipe, RequestError
from lmflow_transformers.training.checkpoints import damage, kept_recipe, last_whole_checkpoint
from lmflow_transformers.training.job import TorchJob


def recipe_of(job: TorchJob) -> Recipe:
    """Return the recipe of a job with the device, which is known once the model is open."""
    return dataclasses.replace(job.recipe, fixed={**job.recipe.fixed, "the device": job.model.device.type})


def checkpoint_to_resume(job: TorchJob, recipe: Recipe) -> Path | None:
    """Return the newest whole checkpoint, where the job goes on from one.

    Raises:
        RequestError: there is none, or it was trained otherwise.
    """
    if not job.resume:
        return None
    checkpoint = last_whole_checkpoint(job.checkpoints)
    if job.model.plan.sharded_state:
        _check_processes(kept_recipe(checkpoint), checkpoint, job.world.size)
    told = recipe.check(kept_recipe(checkpoint), str(checkpoint), anyway=job.resume_anyway)
    if job.world.is_main:
        changes = f"; changed since: {'; '.join(told)}" if told else ""
        print(f"lmflow: going on from {checkpoint}{changes}", file=sys.stderr)
    return checkpoint


def _check_processes(kept: object, checkpoint: Path, size: int) -> None:
    """Check that each process finds its part of the optimizer's state.

    Raises:
        RequestError: the checkpoint was written by another number of processes.
    """
    fixed = kept.get("fixed", {}) if isinstance(kept, dict) else {}
    before = fixed.get("the number of processes", size)
    if before != size:
        raise RequestError(
            f"{checkpoint} was written by {before} processes, each with its part of the optimizer's state, and this "
            f"job has {size}: start {before}, or leave out --resume and add --overwrite to start anew"
        )


def go_on(state: TrainerState, arguments: TrainingArguments, checkpoint: Path) -> None:
    """Let a state that was read from a checkpoint go on as this run is asked to, wherever its folder is now.

    Raises:
        RequestError: the run would end before the checkpoint.
    """
    if state.global_step > state.max_steps:
        raise RequestError(
            f"{checkpoint} is at step {state.global_step}, and the run is to end at step {state.max_steps}: "
            "raise --epochs or --max-steps"
        )
    state.compute_steps(arguments, state.max_steps)
    if not arguments.load_best_model_at_end or state.best_metric is None:
        return
    best = checkpoint.parent / f"checkpoint-{state.best_global_step}"
    if problem := damage(best):
        print(f"lmflow: the best weights so far are lost: {best} is damaged ({problem})", file=sys.stderr)
    state.best_model_checkpoint = str(best)
