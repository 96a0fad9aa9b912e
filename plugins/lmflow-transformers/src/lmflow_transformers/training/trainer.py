"""The Hugging Face ``Trainer``, fed with packed batches and run with a loss that is an object."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from transformers.trainer_callback import ExportableState

from lmflow_core.api import EncodedExample, Recipe
from lmflow_transformers.attention import using_attention
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.devices import rows_of_kernels
from lmflow_transformers.isolation import Packing, masked_attention
from lmflow_transformers.shards import is_sharded, reshard
from lmflow_transformers.training.accompanying import accompanied, accompanying_image
from lmflow_transformers.training.arguments import training_arguments
from lmflow_transformers.training.callbacks import AtStart, TunerCallbacks
from lmflow_transformers.training.checkpointing import CheckpointingTrainer
from lmflow_transformers.training.checkpoints import FIGURES
from lmflow_transformers.training.freezing import FrozenGroups
from lmflow_transformers.training.job import Rollout, TorchJob
from lmflow_transformers.training.loss import LossModule, Mean
from lmflow_transformers.training.metrics import RunningMeans
from lmflow_transformers.training.micro_batches import micro_batches, tokens_per_micro_batch
from lmflow_transformers.training.optimizers import AdamW, allocate_state, check_elementwise, check_optimizer
from lmflow_transformers.training.packs import EvenShares, MicroBatches, Pack, Packs
from lmflow_transformers.training.progress import Progress
from lmflow_transformers.training.reaching import run_whole
from lmflow_transformers.training.resuming import go_on
from lmflow_transformers.training.rollouts import Rollouts


class LossTrainer(CheckpointingTrainer):
    """A trainer whose batches have no padding and whose loss is weighted by its units.

    The loss of an optimizer step is the sum over all its units, of every process and accumulated batch, divided by
    their number: splitting a step differently changes nothing.
    """

    def __init__(
        self,
        job: TorchJob,
        recipe: Recipe,
        module: LossModule,
        progress: Progress,
        packing: Packing,
        rollout: Rollout | None = None,
    ) -> None:
        """Prepare a job.

        Args:
            job: what is trained on what.
            recipe: what the result depends on; it is kept with each checkpoint.
            module: the network with what is learned.
            progress: counts and shows.
            packing: what packed sequences are to the model.
            rollout: makes, of the examples of a step, those that are trained on.

        Raises:
            RequestError: micro-batches are asked for where they cannot be.
        """
        self._loss, self._packing = module.loss, packing
        self._rollouts = None if rollout is None else Rollouts(rollout, self._batches, self._answering)
        self._progress = progress
        self._means = RunningMeans(job.engine.all_gather)
        super().__init__(
            job,
            recipe,
            model=module,
            args=training_arguments(job),
            train_dataset=Packs(job.data, job.settings.pack_length, job.settings.seed),
            eval_dataset=Packs(job.validation, None, 0) if job.validation is not None else None,
            data_collator=self._collate if rollout is None else list,
            callbacks=[progress],
        )
        if is_sharded(module):
            # It is spread already, and averages gradients itself.
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        alone = self.accelerator.distributed_type == DistributedType.NO
        most = tokens_per_micro_batch(job.settings.micro_batch_tokens, self.args.device, alone)
        self._micro_batch_tokens = most if packing.isolated or not alone else 1
        mixed = self.accelerator.mixed_precision != "no"
        self._rows = rows_of_kernels(self.args.device, torch.bfloat16 if mixed else job.model.dtype)
        data = [job.data] if job.validation is None else [job.data, job.validation]
        self._image = accompanying_image(job, data, packing.isolated)

    def add_own_callbacks(self, checkpoint: Path | None) -> None:
        """Let the tuner take part in the run, which goes on with the figures of its checkpoint, if any."""
        if checkpoint is not None:
            self.add_callback(AtStart(lambda: self._go_on_with(checkpoint)))
        callbacks = self._job.tuner.callbacks(self._job.model, self._job.settings.seed)
        told = TunerCallbacks(callbacks, lambda: self.raw_optimizer, self._job.data, checkpoint)
        self.add_callback(told)
        self.savers.append(told.save)

    def figures(self) -> dict[str, Any]:
        """Return what was counted so far, and what has not been logged yet, over all processes."""
        gather = self._job.engine.all_gather
        return {
            "tokens": self._progress.earlier_tokens + sum(gather(self._progress.tokens)),
            "seconds": self._progress.earlier_seconds + self._progress.seconds,
            "logged_step": self._globalstep_last_logged,
            "loss": statistics.fmean(gather(float(self._tr_loss))),
            "metrics": self._means.sums(),
        }

    def _go_on_with(self, checkpoint: Path) -> None:
        figures = json.loads((checkpoint / FIGURES).read_text(encoding="utf-8"))
        self._progress.earlier_tokens, self._progress.earlier_seconds = figures["tokens"], figures["seconds"]
        self._globalstep_last_logged = figures["logged_step"]
        self._tr_loss += figures["loss"]
        if self._job.world.is_main:
            self._means.add_sums(figures["metrics"])
        go_on(self.state, self.args, checkpoint)
        # A callback that the run before did not have is to be saved as well.
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks.setdefault(type(callback).__name__, {})

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        """Move a model that is not where its engine has put it."""
        if not self._job.model.plan.sharded:
            super()._move_model_to_device(model, device)

    # ---- batches

    def get_train_dataloader(self) -> Any:
        """Return the batches of this process; none of its examples is another process's as well."""
        loader = super().get_train_dataloader()
        together = self.args.world_size * self.args.per_device_train_batch_size
        if self.args.world_size > 1:
            loader.set_sampler(EvenShares(loader.get_sampler(), together))
        return loader

    def _collate(self, packs: Iterable[Pack]) -> MicroBatches:
        """Return a batch of packs; where they are empty, one that does not count in their place."""
        return self._batches(list(itertools.chain.from_iterable(packs)))

    def _batches(self, examples: list[EncodedExample], counts: bool = True) -> MicroBatches:
        parts = micro_batches(examples or [self._job.data[0]], self._micro_batch_tokens)
        return MicroBatches(tuple(self._batch(part, counts and bool(examples)) for part in parts))

    def _batch(self, examples: Sequence[EncodedExample], counts: bool) -> Batch:
        image = accompanied(examples, self._image)
        inputs = self._job.model.media_inputs
        batch = collate(examples, **self._packing._asdict(), media_inputs=inputs, beside=image, rows=self._rows)
        return dataclasses.replace(batch, counts=counts)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Fetch the batches of a step, or what a rollout makes of them, and count their units."""
        if self._rollouts is None:
            fetched = list(itertools.islice(epoch_iterator, num_batches))
        else:
            step = self.state.global_step
            fetched = self._rollouts.take(epoch_iterator, num_batches, step, step % self._steps_of_epoch())
        return fetched, self._get_num_items_in_batch(fetched, device)

    def _steps_of_epoch(self) -> int:
        return -(-len(self.callback_handler.train_dataloader) // self.args.gradient_accumulation_steps)

    def _answering(self, rollout: Callable[[], list[EncodedExample]]) -> list[EncodedExample]:
        """Return what a rollout makes, the network being set to answer prompts.

        Those that are answered together are padded, which the attention of packed sequences knows nothing of. Answers
        come from the same computation as the log-probabilities that are learned.
        """
        model = self._job.model
        training = model.network.training
        model.network.eval()
        try:
            with using_attention(model.base, masked_attention(model.base)), self.accelerator.autocast():
                return run_whole(self.model, rollout)
        finally:
            model.network.train(training)

    def _get_num_items_in_batch(self, batch_samples: list[MicroBatches], device: torch.device) -> torch.Tensor:
        """Return the units of a step over all processes, at least one."""
        mine = sum(self._units(batch) for sample in batch_samples for batch in sample.batches)
        return torch.tensor(float(max(1, sum(self._job.engine.all_gather(mine)))), device=device)

    def _units(self, batch: Batch) -> int:
        return self._loss.units(batch) if batch.counts else 0

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs.to(self.args.device)

    def floating_point_ops(self, inputs: Any) -> int:
        """Count none: what a loss computes is its own affair."""
        return 0

    # ---- steps

    def training_step(self, model: Any, inputs: MicroBatches, num_items_in_batch: Any = None) -> torch.Tensor:
        """Add up the gradients of a batch, one micro-batch after the other, and return its loss."""
        step = super().training_step
        losses = [step(model, batch, num_items_in_batch) for batch in inputs.batches]
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return this process's share of the step's loss; the trainer averages gradients over processes."""
        self._progress.tokens += inputs.tokens if inputs.counts else 0
        output = model(inputs, num_items_in_batch)
        self._means.add(output["metrics"])
        loss = output["loss"] * self.args.world_size
        return (loss, {"loss": loss}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the metrics of the loss since the last time."""
        super().log({**logs, **self._means.take()} if "loss" in logs else logs, start_time)

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer of the run over what the tuner trains and, in a fresh run, its state."""
        if self.optimizer is None:
            groups = self._job.tuner.parameter_groups(self._job.model)
            self.optimizer = self.raw_optimizer = self._job.optimizer.make(groups, self._job.settings)
            check_optimizer(self.optimizer, groups)
            plan = self._job.model.plan
            if plan.sharded_state or plan.sharded:
                check_elementwise(self.optimizer, type(self._job.optimizer).use_weights is not AdamW.use_weights)
            if plan.sharded_state and self._job.tuner.freezes_while_training:
                self.add_callback(FrozenGroups(self.optimizer))
            if not self._job.resume and not self._job.tuner.freezes_while_training and not plan.sharded_state:
                allocate_state(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the learning rate's course; a warm-up of less than a whole step is none, not one of rate zero."""
        settings = self._job.settings
        share = int(settings.warmup_ratio * num_training_steps)
        self.args.warmup_steps = share if settings.warmup_steps is None else settings.warmup_steps
        return super().create_scheduler(num_training_steps, optimizer)

    # ---- validation

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return the loss and its metrics on the validation data; each process measures its share."""
        model = self.model
        model.eval()
        self.use_weights(training=False)
        means = RunningMeans(self._job.engine.all_gather)
        for examples in self._shares():
            # The answers of each measurement are sampled with the same seeds.
            made = self._collate([examples]) if self._rollouts is None else self._rollouts.measured([examples])
            for batch in self._prepare_inputs(made).batches:
                output = model(batch, 1)
                if batch.counts:
                    loss = Mean(output["loss"].double(), self._loss.units(batch))
                    means.add({**output["metrics"], "loss": loss})
        self.use_weights(training=True)
        reshard(model)
        model.train()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.take().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def use_weights(self, *, training: bool) -> None:
        """Let the optimizer set the weights that train, or those one uses, where the two differ."""
        self._job.optimizer.use_weights(self.raw_optimizer, training=training)

    def _shares(self) -> Iterator[Pack]:
        """Yield this process's batches.

        All processes have the same number of batches, as a sharded model needs them all in each pass; the last of one
        that has fewer examples is empty.
        """
        examples, world, size = self._job.validation, self.args.world_size, self.args.per_device_train_batch_size
        if examples is None:
            return
        mine = range(self.args.process_index, len(examples), world)
        batches = -(-len(range(0, len(examples), world)) // size)
        for number in range(batches):
            yield [examples[position] for position in mine[number * size : (number + 1) * size]]
