"""The Hugging Face ``Trainer``, fed with packed batches and a loss over labelled tokens."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer
from transformers.trainer_utils import rotate_checkpoints

from lmflow_core.api import Encoded, EncodedDataset, LmflowError, LossPoint, RequestError, TrainingJob, TrainingReport
from lmflow_transformers.attention import using_attention
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.isolation import keeps_apart, own_attention
from lmflow_transformers.lean import lean_layers
from lmflow_transformers.memory import keep_freed_memory, take_into_memory
from lmflow_transformers.packing import best_fit, lay_out
from lmflow_transformers.training.arguments import training_arguments
from lmflow_transformers.training.checkpoints import PARTIAL, STATE, last_whole_checkpoint, put_in_place
from lmflow_transformers.training.early_stopping import early_stopping
from lmflow_transformers.training.failures import StopAtNan, check_finite, explained_failures
from lmflow_transformers.training.interruption import StopOnSignal
from lmflow_transformers.training.offloading import offloaded_activations
from lmflow_transformers.training.optimizers import allocate_state
from lmflow_transformers.training.passes import one_by_one, parts_of, tokens_per_pass
from lmflow_transformers.training.progress import Progress
from lmflow_transformers.training.trackers import explain_failed_start, prepare_trackers
from lmflow_transformers.writing import refusals_as_os_errors

Pack = list[Encoded]


class _Packs(Dataset[Pack]):
    """What is trained on, a pack at a time: single examples, or best-fit packs when a length is given."""

    def __init__(self, rows: EncodedDataset, pack_length: int | None, seed: int) -> None:
        self._rows = rows
        self._packs: Sequence[Sequence[int]] = [[position] for position in range(len(rows))]
        if pack_length is not None:
            lengths = [len(rows[position].input_ids) for position in range(len(rows))]
            self._packs = best_fit(lengths, pack_length, seed)

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, position: int) -> Pack:
        return [self._rows[number] for number in self._packs[position]]


def collate(packs: Iterable[Pack]) -> dict[str, torch.Tensor]:
    """Lay a batch end to end; ``labels`` is there for the trainer, which counts labelled tokens by it."""
    laid = lay_out(list(itertools.chain.from_iterable(packs)))
    return {**laid, "labels": laid["shift_labels"]}


class PackedTrainer(Trainer):
    """A trainer whose batches have no padding and whose loss is weighted by labelled tokens.

    The loss of an optimizer step is the sum over all its labelled tokens, of every process and accumulated batch,
    divided by their number: splitting a step differently changes nothing.
    """

    def __init__(self, job: TrainingJob, progress: Progress, extensions: Mapping[str, Any], apart: bool) -> None:
        """Prepare a job; ``apart`` says whether its model keeps packed examples apart.

        Raises:
            RequestError: parts of batches are asked for, or needed, where they cannot be.
        """
        self._job = job
        self._apart = apart
        self._progress = progress
        self._folder: str | None = None
        callbacks = extensions.get("callbacks", ())
        self._savers = [callback.save_into for callback in callbacks if hasattr(callback, "save_into")]
        super().__init__(
            model=job.model.network,  # type: ignore[attr-defined]
            args=training_arguments(job, extensions.get("arguments", {})),
            train_dataset=_Packs(job.data, job.settings.pack_length, job.settings.seed),
            eval_dataset=_Packs(job.held_out, None, 0) if job.held_out is not None else None,
            data_collator=collate,
            callbacks=[progress, *callbacks],
            optimizers=(extensions.get("optimizer"), None),
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        alone = self.accelerator.distributed_type == DistributedType.NO
        self._pass_tokens = tokens_per_pass(job.settings.pass_tokens, self.args.device, alone)
        if not (apart or alone or (job.settings.batch_size == 1 and job.settings.pack_length is None)):
            raise RequestError(
                "packed examples would reach each other in this model: with several processes or DeepSpeed, use "
                "--batch-size 1 and --gradient-accumulation-steps, without --pack-length"
            )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this process's share of the step's loss; the trainer averages gradients over processes."""
        self._progress.tokens += inputs["input_ids"].numel()
        loss = model(**inputs, num_items_in_batch=num_items_in_batch)["loss"] * self.args.world_size
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add up the gradients of a batch, part by part, and return its loss."""
        step = super().training_step
        losses = [step(model, part, num_items_in_batch) for part in self._parts(inputs)]
        return torch.stack(losses).sum()

    def _parts(self, batch: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """Return what goes through the model at a time."""
        if not self._apart:
            return one_by_one(batch)
        return [batch] if self._pass_tokens is None else parts_of(batch, self._pass_tokens)

    def create_optimizer(self, *arguments: Any, **others: Any) -> Any:
        """Make the optimizer, unless the tuner has, and in a fresh run its state."""
        made_by_tuner = self.optimizer is not None
        optimizer = super().create_optimizer(*arguments, **others)
        if not made_by_tuner and not self._job.resume:
            allocate_state(optimizer)
        return optimizer

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
            inputs = self._prepare_inputs(collate([batch]))
            for part in self._parts(inputs):
                count = int((part["shift_labels"] >= 0).sum())
                loss = float(model(**part, num_items_in_batch=1)["loss"])
                sums += torch.tensor([loss, count], dtype=torch.float64)
        model.train()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(sums)
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _shares(self) -> Iterator[Pack]:
        rows = self._job.held_out
        if rows is None:
            return
        mine = range(self.args.process_index, len(rows), self.args.world_size)
        for start in range(0, len(mine), self.args.per_device_train_batch_size):
            yield [rows[position] for position in mine[start : start + self.args.per_device_train_batch_size]]

    def _get_output_dir(self, trial: Any) -> str:
        return self._folder or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside and give it its name when it is whole.

        Raises:
            LmflowError: the disk refuses, or the weights are no numbers; earlier checkpoints are as they were.
        """
        check_finite(model, self.state.global_step)
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._folder = str(folder / PARTIAL)
        try:
            with refusals_as_os_errors():
                self._write_checkpoint(model, trial, folder, name)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
            raise LmflowError(
                f"the checkpoint of step {self.state.global_step} cannot be written to {folder}: "
                f"{getattr(error, 'strerror', None) or error}; earlier checkpoints are whole"
            ) from error
        finally:
            self._folder = None
        if self.args.should_save:
            os.rmdir(folder / PARTIAL)
            rotate_checkpoints(str(folder), self.args.save_total_limit, self.state.best_model_checkpoint)
        self._barrier()

    def _write_checkpoint(self, model: Any, trial: Any, folder: Path, name: str) -> None:
        if self.args.should_save:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        self._barrier()
        super()._save_checkpoint(model, trial)
        self._barrier()
        self._note_best(folder, name)
        if self.args.should_save:
            self.state.save_to_json(str(folder / PARTIAL / name / STATE))
            for save_into in self._savers:
                save_into(folder / PARTIAL / name)
            shutil.rmtree(folder / name, ignore_errors=True)
            put_in_place(folder / PARTIAL / name, folder / name)

    def _note_best(self, folder: Path, name: str) -> None:
        """Remember the best checkpoint under its final name, which it does not have while it is written."""
        best = self.state.best_global_step
        if best and (name == f"checkpoint-{best}" or (folder / f"checkpoint-{best}").exists()):
            self.state.best_model_checkpoint = str(folder / f"checkpoint-{best}")

    def _barrier(self) -> None:
        if self.args.world_size > 1:
            torch.distributed.barrier()


def train_with_trainer(job: TrainingJob) -> TrainingReport:
    """Train a job's model in place and report.

    Raises:
        RequestError: a tracker is not there.
        LmflowError: the loss is no number any more, memory ran out, a checkpoint cannot be written, or the run was
            stopped by a signal, having left a checkpoint.
    """
    model: Any = job.model
    prepare_trackers(job.settings.report_to, job.checkpoints.parent)
    extensions = job.tuner.trainer_extensions(job.model, job.settings)
    if model.device.type == "cpu":
        keep_freed_memory()
        take_into_memory(model.network)
    progress, stop = Progress(), StopOnSignal()
    apart = keeps_apart(model.base, job.attention)
    if not apart and job.world.leads:
        print("lmflow: packed examples would reach each other in this model: they go through it alone", file=sys.stderr)
    try:
        with explained_failures(job.checkpoints), _set_for_training(model.base, job, apart):
            trainer = PackedTrainer(job, progress, extensions, apart)
            trainer.remove_callback(PrinterCallback)
            for callback in trainer.callback_handler.callbacks:
                explain_failed_start(callback, job.checkpoints.parent)
            checkpoint = last_whole_checkpoint(job.checkpoints) if job.resume else None
            for callback in (StopAtNan(), stop, *early_stopping(job.settings.early_stopping_patience, checkpoint)):
                trainer.add_callback(callback)
            progress.start()
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        stop.give_back()
    if stop.stopped:
        raise LmflowError(f"stopped at step {trainer.state.global_step}; go on with --resume")
    check_finite(model.network, trainer.state.global_step)
    model.network.eval()
    return _report(trainer, progress)


@contextmanager
def _set_for_training(network: Any, job: TrainingJob, apart: bool) -> Iterator[None]:
    """For the time of the context, set attention, cache and activation checkpointing as training wants them."""
    device, settings = job.model.device, job.settings  # type: ignore[attr-defined]
    offload = offloaded_activations(network, device) if settings.activation_offload else nullcontext()
    attention = job.attention if apart else own_attention(network)
    with using_attention(network, attention), _fewer_activations(network, settings.gradient_checkpointing), offload:
        own, network.config.use_cache = getattr(network.config, "use_cache", True), False
        try:
            yield
        finally:
            network.config.use_cache = own


@contextmanager
def _fewer_activations(network: Any, checkpointing: bool) -> Iterator[None]:
    """Recompute whole layers in backward where that is asked for; else only what costs next to nothing."""
    if not checkpointing:
        with lean_layers(network):
            yield
        return
    _activation_checkpointing(network, "enable", {"use_reentrant": False})
    try:
        yield
    finally:
        _activation_checkpointing(network, "disable")


def _activation_checkpointing(network: Any, switch: str, *arguments: Any) -> None:
    """Switch recomputation of activations on or off, under the name this version of transformers has for it."""
    current = getattr(network, f"activation_checkpointing_{switch}", None)
    (current or getattr(network, f"gradient_checkpointing_{switch}"))(*arguments)


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
