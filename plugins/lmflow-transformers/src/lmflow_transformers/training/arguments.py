"""LMFlow's training settings as transformers' ``TrainingArguments``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from lmflow_core.api import TrainingJob


def training_arguments(job: TrainingJob, extra: Mapping[str, Any]) -> TrainingArguments:
    """Return the arguments of the Hugging Face trainer for a job, with what its tuner adds."""
    settings = job.settings
    values: dict[str, Any] = {
        "output_dir": str(job.checkpoints),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.lr,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "adam_beta1": settings.adam_beta1,
        "adam_beta2": settings.adam_beta2,
        "adam_epsilon": settings.adam_epsilon,
        "optim": "adamw_torch_fused",
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        **_saving(job),
        "save_total_limit": settings.save_total_limit,
        "eval_strategy": _eval_strategy(job),
        "eval_steps": settings.eval_steps,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "report_to": list(settings.report_to) or "none",
        "run_name": settings.run_name,
        "seed": settings.seed,
        "use_cpu": job.model.device.type == "cpu",  # type: ignore[attr-defined]
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    arguments = TrainingArguments(**{**values, **_of_engine(job), **extra})
    # One process trains on one GPU: the trainer would else split batches over all, in the middle of examples.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _of_engine(job: TrainingJob) -> dict[str, Any]:
    """Return what the engine adds; a job on the processors of a machine with GPUs talks as one without."""
    added = dict(job.engine.trainer_arguments())
    if "ddp_backend" in added and job.model.device.type == "cpu":  # type: ignore[attr-defined]
        added["ddp_backend"] = "gloo"
    return added


def _saving(job: TrainingJob) -> dict[str, Any]:
    """Return when checkpoints are saved; where the best is wanted, they are saved when it is measured."""
    settings = job.settings
    if settings.load_best_model or settings.early_stopping_patience is not None:
        steps = settings.eval_steps or 500
        return {"save_strategy": _eval_strategy(job), "save_steps": steps, "load_best_model_at_end": True}
    return {"save_strategy": "steps" if settings.save_steps else "no", "save_steps": settings.save_steps or 500}


def _eval_strategy(job: TrainingJob) -> str:
    if job.held_out is None:
        return "no"
    return "steps" if job.settings.eval_steps else "epoch"
