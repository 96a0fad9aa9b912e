"""LMFlow's training settings as transformers' ``TrainingArguments``."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from lmflow_transformers.training.job import TorchJob


def training_arguments(job: TorchJob) -> TrainingArguments:
    """Return the arguments of the Hugging Face trainer for a job."""
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
        "use_cpu": job.model.device.type == "cpu",
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        # Parameters that are frozen for now take no part in a step; data parallelism must not wait for them.
        "ddp_find_unused_parameters": job.tuner.freezes_while_training,
        **_precision(job),
    }
    arguments = TrainingArguments(**{**values, **_of_engine(job)})
    # One process trains on one GPU: the trainer would else split batches over all, in the middle of examples.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _precision(job: TorchJob) -> dict[str, bool]:
    """Return the number format of the computation where it is not that of the weights."""
    computed = job.model.plan.compute_dtype
    return {"bf16": computed == "bfloat16", "fp16": computed == "float16"}


def _of_engine(job: TorchJob) -> dict[str, Any]:
    """Return what the engine adds; a job on the processors of a machine with GPUs talks as one without."""
    added = dict(job.engine.trainer_arguments())
    if "ddp_backend" in added and job.model.device.type == "cpu":
        added["ddp_backend"] = "gloo"
    return added


def _saving(job: TorchJob) -> dict[str, Any]:
    """Return when checkpoints are saved; where the best is wanted, they are saved when it is measured."""
    settings = job.settings
    if settings.load_best_model or settings.early_stopping_patience is not None:
        steps = settings.eval_steps or 500
        return {"save_strategy": _eval_strategy(job), "save_steps": steps, "load_best_model_at_end": True}
    return {"save_strategy": "steps" if settings.save_steps else "no", "save_steps": settings.save_steps or 500}


def _eval_strategy(job: TorchJob) -> str:
    if job.validation is None:
        return "no"
    return "steps" if job.settings.eval_steps else "epoch"
