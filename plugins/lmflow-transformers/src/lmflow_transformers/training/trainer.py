"""The Hugging Face ``Trainer``, fed with packed batches and a loss over labelled tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from lmflow_core.api import (
    Encoded,
    EncodedDataset,
    LmflowError,
    LossPoint,
    RequestError,
    TrainingJob,
    TrainingReport,
)
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.packing import lay_out
from lmflow_transformers.training.arguments import training_arguments
from lmflow_transformers.training.progress import Progress


class _Rows(Dataset[Encoded]):
    """Encoded rows as a torch dataset."""

    def __init__(self, rows: EncodedDataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Encoded:
        return self._rows[position]


def collate(examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    """Lay a batch end to end; ``labels`` is there for the trainer, which counts labelled tokens by it."""
    laid = lay_out(examples)
    return {**laid, "labels": laid["shift_labels"]}


class PackedTrainer(Trainer):
    """A trainer whose batches have no padding and whose loss is weighted by labelled tokens.

    The loss of an optimizer step is the sum over all its labelled tokens, of every process and accumulated batch,
    divided by their number: splitting a step differently changes nothing.
    """

    def __init__(self, job: TrainingJob, progress: Progress, extensions: Mapping[str, Any]) -> None:
        self._job = job
        self._progress = progress
        super().__init__(
            model=job.model.network,  # type: ignore[attr-defined]
            args=training_arguments(job, extensions.get("arguments", {})),
            train_dataset=_Rows(job.data),
            eval_dataset=_Rows(job.held_out) if job.held_out is not None else None,
            data_collator=collate,
            callbacks=[progress, *extensions.get("callbacks", ())],
            optimizers=(extensions.get("optimizer"), None),
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this process's share of the step's loss; the trainer averages gradients over processes."""
        self._progress.tokens += inputs["input_ids"].numel()
        loss = model(**inputs, num_items_in_batch=num_items_in_batch)["loss"] * self.args.world_size
        return (loss, {"loss": loss}) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the learning rate's course; a warm-up of less than a whole step is none, not one of rate zero."""
        self.args.warmup_steps = int(self._job.settings.warmup_ratio * num_training_steps)
        return super().create_scheduler(num_training_steps, optimizer)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the token-weighted held-out loss; each process measures its share."""
        model = self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self._shares():
            inputs = self._prepare_inputs(collate(batch))
            count = int((inputs["shift_labels"] >= 0).sum())
            sums += torch.tensor([float(model(**inputs, num_items_in_batch=1)["loss"]), count], dtype=torch.float64)
        model.train()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(sums)
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _shares(self) -> Iterator[list[Encoded]]:
        rows = self._job.held_out
        if rows is None:
            return
        mine = range(self.args.process_index, len(rows), self.args.world_size)
        for start in range(0, len(mine), self.args.per_device_train_batch_size):
            yield [rows[position] for position in mine[start : start + self.args.per_device_train_batch_size]]


class _StopAtNan(TrainerCallback):
    """Ends a run whose loss is no longer a number."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Check the newest loss."""
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise LmflowError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower --lr, raise --warmup-ratio, "
                "or use --dtype float32"
            )


def train_with_trainer(job: TrainingJob) -> TrainingReport:
    """Train a job's model in place and report.

    Raises:
        LmflowError: the loss is no number any more, or memory ran out.
    """
    model: Any = job.model
    extensions = job.tuner.trainer_extensions(job.model, job.settings)
    own_attention = model.base.config._attn_implementation
    model.base.set_attn_implementation(job.attention)
    model.base.config.use_cache = False
    if job.settings.gradient_checkpointing:
        _activation_checkpointing(model.base, "enable", {"use_reentrant": False})
    progress = Progress()
    try:
        trainer = PackedTrainer(job, progress, extensions)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_StopAtNan())
        trainer.train(resume_from_checkpoint=_last_checkpoint(job))
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise LmflowError(
            "memory ran out: lower --batch-size or --max-length, add --gradient-checkpointing, "
            "or train less with --tuner lora"
        ) from error
    finally:
        model.base.set_attn_implementation(own_attention)
        model.base.config.use_cache = True
        if job.settings.gradient_checkpointing:
            _activation_checkpointing(model.base, "disable")
    model.network.eval()
    return _report(trainer, progress)


def _activation_checkpointing(network: Any, switch: str, *arguments: Any) -> None:
    """Switch recomputation of activations on or off, under the name this version of transformers has for it."""
    current = getattr(network, f"activation_checkpointing_{switch}", None)
    (current or getattr(network, f"gradient_checkpointing_{switch}"))(*arguments)


def _last_checkpoint(job: TrainingJob) -> str | None:
    if not job.resume:
        return None
    found = get_last_checkpoint(str(job.checkpoints))
    if found is None:
        raise RequestError(f"{job.checkpoints} holds no checkpoint to resume from; leave out --resume")
    return str(found)


def _summed(count: int, processes: int) -> int:
    """Return the sum of a count over all processes."""
    if processes == 1:
        return count
    total = torch.tensor(count)
    torch.distributed.all_reduce(total)
    return int(total)


def _report(trainer: PackedTrainer, progress: Progress) -> TrainingReport:
    history = trainer.state.log_history
    return TrainingReport(
        steps=trainer.state.global_step,
        tokens=_summed(progress.tokens, trainer.args.world_size),
        seconds=progress.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        losses=tuple(LossPoint(log["step"], log["loss"]) for log in history if "loss" in log),
        held_out_losses=tuple(LossPoint(log["step"], log["eval_loss"]) for log in history if "eval_loss" in log),
    )
