"""The Hugging Face ``Trainer`` with checkpoints that are whole or absent, of the network without its loss."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from lmflow_core.api import LmflowError, Recipe
from lmflow_transformers.shards import full_state, is_sharded, sharded_state, taking_whole_weights
from lmflow_transformers.training.checkpoints import FIGURES, PARTIAL, STATE, damage, mark_whole, put_in_place, rotate
from lmflow_transformers.training.failures import check_finite
from lmflow_transformers.training.job import TorchJob
from lmflow_transformers.training.optimizers import AdamW
from lmflow_transformers.writing import refusals_as_os_errors


class CheckpointingTrainer(Trainer):
    """A trainer of a wrapped network.

    Attributes:
        savers: what puts state of its own into a checkpoint.
        raw_optimizer: what the run's optimizer is, without what libraries put around it; None before it is made.
    """

    def __init__(self, job: TorchJob, recipe: Recipe, **arguments: Any) -> None:
        """Prepare a job.

        Args:
            job: what is trained on what.
            recipe: what the result depends on; it is kept with each checkpoint.
            arguments: those of the trainer.
        """
        self._job = job
        self._recipe = recipe
        self._folder: str | None = None
        self.savers: list[Callable[[Path], None]] = []
        self.raw_optimizer: Any = None
        super().__init__(**arguments)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the network into a checkpoint; every process takes part in gathering it."""
        weights = self._job.engine.full_weights(self._job.model)
        if self.args.should_save:
            network = self._job.model.network
            # A trainer reads weights by the names they have in the network, not by those of the published files.
            named = {"save_original_format": False} if network is self._job.model.base else {}
            network.save_pretrained(output_dir or self.args.output_dir, state_dict=weights, **named)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self._network_as_model():
            super()._load_from_checkpoint(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        """Go back to the best weights, and to the state from which an optimizer makes those one uses of them.

        Raises:
            LmflowError: their checkpoint was damaged meanwhile.
        """
        best = Path(self.state.best_model_checkpoint or "")
        if problem := damage(best):
            raise LmflowError(
                f"the best weights are lost: {best} is damaged ({problem}); to keep the last ones, leave out "
                "--load-best-model and --early-stopping-patience and add --resume-anyway"
            )
        with self._network_as_model():
            super()._load_best_model()
        if type(self._job.optimizer).use_weights is not AdamW.use_weights:
            self._load_optimizer_and_scheduler(str(best))

    @contextmanager
    def _network_as_model(self) -> Iterator[None]:
        """For the time of the context, let the trainer see the network, which what is loaded belongs to."""
        module, self.model = self.model, self._job.model.network
        try:
            with taking_whole_weights(self.model):
                yield
        finally:
            self.model = module

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the optimizer's state, of shards the whole."""
        if not is_sharded(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = full_state(self.raw_optimizer.state_dict(), keep=self.args.should_save)
        handle = self.raw_optimizer.register_state_dict_post_hook(lambda *_: state)
        try:
            super()._save_optimizer_and_scheduler(output_dir)
        finally:
            handle.remove()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Read what was written, of a whole the shards, whatever the number of processes was."""
        if checkpoint is None or not is_sharded(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state, schedule = (
            torch.load(Path(checkpoint) / name, map_location="cpu", weights_only=True, mmap=True)
            for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
        )
        self.raw_optimizer.load_state_dict(sharded_state(state, self.raw_optimizer))
        self.lr_scheduler.load_state_dict(schedule)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether to save: at a measurement that is the best so far, and where a save is due anyway."""
        best = super()._determine_best_metric(metrics, trial) and self.args.load_best_model_at_end
        self.control.should_save = self.control.should_save or best
        return self.control.should_save

    def _get_output_dir(self, trial: Any) -> str:
        return self._folder or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside and give it its name when it is whole.

        Raises:
            LmflowError: the disk refuses, or the weights are no numbers; earlier checkpoints are as they were.
        """
        check_finite(model, self.state.global_step, self._job.engine.all_gather)
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
            rotate(folder, self._job.settings.save_total_limit, self.state.best_model_checkpoint)
        self._barrier()

    def _write_checkpoint(self, model: Any, trial: Any, folder: Path, name: str) -> None:
        if self.args.should_save:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        self._barrier()
        super()._save_checkpoint(model, trial)
        self._barrier()
        self._note_best(folder, name)
        figures = json.dumps(self.figures())
        if self.args.should_save:
            self.state.save_to_json(str(folder / PARTIAL / name / STATE))
            (folder / PARTIAL / name / FIGURES).write_text(figures, encoding="utf-8")
            for save in self.savers:
                save(folder / PARTIAL / name)
            mark_whole(folder / PARTIAL / name, self._recipe)
            shutil.rmtree(folder / name, ignore_errors=True)
            put_in_place(folder / PARTIAL / name, folder / name)

    def figures(self) -> dict[str, Any]:
        """Return what was counted so far and is to be told later. All processes call this."""
        return {}

    def _note_best(self, folder: Path, name: str) -> None:
        """Remember the best checkpoint under its final name, which it does not have while it is written."""
        best = self.state.best_global_step
        if best and (name == f"checkpoint-{best}" or (folder / f"checkpoint-{best}").exists()):
            self.state.best_model_checkpoint = str(folder / f"checkpoint-{best}")

    def _barrier(self) -> None:
        if self.args.world_size > 1:
            torch.distributed.barrier()
