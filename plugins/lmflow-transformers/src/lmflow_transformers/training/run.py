"""A training run from start to report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from transformers import PrinterCallback

from lmflow_core.api import LmflowError, TrainingReport
from lmflow_transformers.attention import using_attention
from lmflow_transformers.devices import peak_memory_bytes
from lmflow_transformers.isolation import Packing, isolates_sequences, masked_attention, shares_beginnings
from lmflow_transformers.lean import lean_layers
from lmflow_transformers.likelihood.head import head_is_plain
from lmflow_transformers.memory import keep_freed_memory, take_into_memory
from lmflow_transformers.sharding import sharded
from lmflow_transformers.training.early_stopping import early_stopping
from lmflow_transformers.training.failures import StopAtNan, check_finite, explained_failures
from lmflow_transformers.training.interruption import StopOnSignal
from lmflow_transformers.training.job import Rollout, TorchJob
from lmflow_transformers.training.loss import Loss, LossModule
from lmflow_transformers.training.metrics import curves
from lmflow_transformers.training.offloading import offloaded_activations
from lmflow_transformers.training.progress import Progress
from lmflow_transformers.training.reaching import run_in_step
from lmflow_transformers.training.resuming import checkpoint_to_resume, recipe_of
from lmflow_transformers.training.trackers import explain_failed_start, prepare_trackers
from lmflow_transformers.training.trainer import LossTrainer


def train(job: TorchJob, loss: Loss, rollout: Rollout | None = None) -> TrainingReport:
    """Train a job's model in place and report.

    Args:
        job: what is trained on what.
        loss: what is learned.
        rollout: makes, of the examples of a step, those that are trained on, with the weights of that step. The
            network is in evaluation mode meanwhile.

    Raises:
        RequestError: a tracker is not there, or the checkpoint to go on from was trained otherwise.
        LmflowError: the loss is no number any more, memory ran out, a checkpoint cannot be written, or the run was
            stopped by a signal, having left a checkpoint.
    """
    model = job.model
    prepare_trackers(job.settings.report_to, job.checkpoints.parent)
    if model.device.type == "cpu":
        keep_freed_memory()
        if not model.plan.sharded:
            take_into_memory(model.network)
    progress, stop = Progress(), StopOnSignal()
    module = LossModule(model.network, model.base, loss)
    try:
        with explained_failures(job.checkpoints), _fewer_activations(job):
            job.engine.spread(module)
            packing = run_in_step(module, model.base, lambda: _packing(job))
            with _set_for_training(job, packing.isolated):
                recipe = recipe_of(job)
                checkpoint = checkpoint_to_resume(job, recipe)
                trainer = LossTrainer(job, recipe, module, progress, packing, rollout)
                trainer.remove_callback(PrinterCallback)
                for callback in trainer.callback_handler.callbacks:
                    explain_failed_start(callback, job.checkpoints.parent)
                trainer.add_own_callbacks(checkpoint)
                for callback in (StopAtNan(), stop, *early_stopping(job.settings.early_stopping_patience, checkpoint)):
                    trainer.add_callback(callback)
                progress.start()
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        stop.give_back()
    if stop.stopped:
        raise LmflowError(f"stopped at step {trainer.state.global_step}; go on with --resume")
    trainer.use_weights(training=False)
    check_finite(model.network, trainer.state.global_step, job.engine.all_gather)
    model.network.eval()
    return _report(job, trainer, loss, progress)


def _packing(job: TorchJob) -> Packing:
    """Return what packed sequences are to the model, and remember what its head is."""
    isolated = isolates_sequences(job.model.base, job.attention)
    shared = isolated and shares_beginnings(job.model.base, job.attention)
    head_is_plain(job.model.base)
    if not isolated and job.world.is_main:
        print("lmflow: packed sequences would reach each other in this model: each goes alone", file=sys.stderr)
    return Packing(isolated, shared)


def _fewer_activations(job: TorchJob) -> AbstractContextManager[Any]:
    """Return a context in which training keeps fewer activations than it would, entered while weights are whole."""
    network = job.model.base
    if job.settings.gradient_checkpointing:
        return recomputed_layers(network)
    # What is made again in a backward pass needs weights that ZeRO gives back before it.
    return nullcontext() if sharded(network, recurse=True) else lean_layers(network)


@contextmanager
def _set_for_training(job: TorchJob, isolated: bool) -> Iterator[None]:
    """For the time of the context, set attention, cache and places of activations as training wants them."""
    network, settings = job.model.base, job.settings
    offload = offloaded_activations(network, job.model.device) if settings.activation_offload else nullcontext()
    attention = job.attention if isolated else masked_attention(network)
    with using_attention(network, attention), offload:
        own, network.config.use_cache = getattr(network.config, "use_cache", True), False
        try:
            yield
        finally:
            network.config.use_cache = own


@contextmanager
def recomputed_layers(network: Any) -> Iterator[None]:
    """Recompute whole layers in backward."""
    _activation_checkpointing(network, "enable", {"use_reentrant": False})
    try:
        yield
    finally:
        _activation_checkpointing(network, "disable")


def _activation_checkpointing(network: Any, switch: str, *arguments: Any) -> None:
    """Switch recomputation of activations on or off, under the name this version of transformers has for it."""
    current = getattr(network, f"activation_checkpointing_{switch}", None)
    (current or getattr(network, f"gradient_checkpointing_{switch}"))(*arguments)


def _report(job: TorchJob, trainer: LossTrainer, loss: Loss, progress: Progress) -> TrainingReport:
    training, validation = curves(trainer.state.log_history)
    return TrainingReport(
        steps=trainer.state.global_step,
        tokens=progress.earlier_tokens + sum(job.engine.all_gather(progress.tokens)),
        seconds=progress.earlier_seconds + progress.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        unit=loss.unit,
        training=training,
        validation=validation,
    )
