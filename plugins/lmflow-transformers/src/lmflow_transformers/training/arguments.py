"""LMFlow's training settings as transformers' ``TrainingArguments``."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from lmflow_transformers.training.deepspeed_values import filled
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
        # Parameters that are frozen for now take no part in a step, nor do those that lead from images to text in one
        # without images; data parallelism must not wait for them.
        "ddp_find_unused_parameters": job.tuner.freezes_while_training or job.model.media_inputs is not None,
        **_precision(job),
    }
    arguments = TrainingArguments(**{**values, **_of_engine(job)})
    # One process trains on one GPU: the trainer would else split batches over all, in the middle of examples.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    # Set behind the check that saves and measurements coincide: our trainer saves at the best measurements besides.
    arguments.load_best_model_at_end = keeps_best(job)
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
    if "deepspeed" in added:
        added["deepspeed"] = filled(added["deepspeed"], job)
    return added


def _saving(job: TorchJob) -> dict[str, Any]:
    """Return when checkpoints are saved besides those that are the best so far."""
    steps = job.settings.save_steps
    return {"save_strategy": "steps" if steps else "best", "save_steps": steps or 500}


def keeps_best(job: TorchJob) -> bool:
    """Whether the result is the weights with the lowest validation loss."""
    return job.settings.load_best_model or job.settings.early_stopping_patience is not None


def _eval_strategy(job: TorchJob) -> str:
    if job.validation is None:
        return "no"
    return "steps" if job.settings.eval_steps else "epoch"
