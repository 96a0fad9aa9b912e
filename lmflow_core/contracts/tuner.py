"""Tuners: which parameters train, and how they are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel, LoadPlan
from lmflow_core.contracts.optimizer import ParameterGroup
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.contracts.tokens import EncodedDataset


@dataclass(frozen=True)
class TrainingState:
    """Where a training run stands.

    Attributes:
        step: optimizer steps done.
        optimizer: the ``torch.optim.Optimizer``.
        data: what is trained on.
        checkpoint: the folder that the run was resumed from, or None.
    """

    step: int
    optimizer: Any
    data: EncodedDataset
    checkpoint: Path | None = None


class TrainingCallback:
    """What takes part in a training run beside the loss; override what is needed. All ranks call all of it."""

    def on_start(self, state: TrainingState) -> None:
        """Run before the first step, or the first after a resume; the optimizer's state is restored by then."""

    def on_step(self, state: TrainingState) -> None:
        """Run before each step."""

    def on_end(self, state: TrainingState) -> None:
        """Run behind the last step."""

    def save(self, checkpoint: Path) -> None:
        """Put state of its own into a checkpoint that is being written; only the main process calls this."""


@dataclass(frozen=True)
class Destination:
    """Where the result of training is written.

    Attributes:
        folder: an existing folder.
        chat_template: the Jinja text that goes with the tokenizer, if any.
        is_main: whether this process writes; the others only take part in what needs them all.
        weights: all weights by name, where the engine had to gather them; None takes them from the model.
    """

    folder: Path
    chat_template: str | None = None
    is_main: bool = True
    weights: Mapping[str, Any] | None = None


class Tuner(Protocol):
    """Target of a ``TunerSpec``: which parameters train, and how they are kept.

    Attributes:
        freezes_while_training: parameters are frozen and thawed during a run, so that not all have gradients in a step.
    """

    freezes_while_training: bool

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Return a load plan with what the tuner needs of the weights."""

    def check(self, model: LanguageModel) -> None:
        """Check an open model, whose weights are not loaded and whose plan is complete.

        Raises:
            LmflowError: the tuner cannot train it; the message names what would.
        """

    def prepare(self, model: LanguageModel, seed: int) -> None:
        """Mark what trains in a loaded model, wrapping it where needed; fresh weights are sampled by the seed."""

    def parameter_groups(self, model: LanguageModel) -> Sequence[ParameterGroup]:
        """Return every parameter that may train, in groups that are updated alike."""

    def callbacks(self, model: LanguageModel, seed: int) -> Sequence[TrainingCallback]:
        """Return what takes part in the run."""

    def reference(self, model: LanguageModel) -> AbstractContextManager[Any] | None:
        """Return a context in which the model's network is what it was before training, or None where it cannot be."""

    def save(self, model: LanguageModel, destination: Destination) -> None:
        """Write the result of training. Every process calls this."""

    def attach(self, model: LanguageModel, folder: Path) -> None:
        """Put an adapter of this tuner on a loaded model; tuners without adapters raise ``ModelError``."""

    def base_reference(self, folder: Path) -> str | None:
        """Return the reference of the model an adapter was made for, when its folder tells."""

    def base_plan(self, folder: Path, plan: LoadPlan) -> LoadPlan:
        """Return a load plan with what an adapter needs of the model it is put on, mostly the one given."""


@dataclass(frozen=True, kw_only=True)
class TunerSpec(Spec):
    """Which parameters train and how they are kept; ``target(options)`` satisfies ``Tuner``.

    ``adapter_file`` is the file that marks a folder as an adapter of this tuner, when it makes adapters. Of several
    tuners of a plugin that make the same adapters, the first puts one on whose folder does not tell its tuner.
    ``learning_rate`` is the peak used when the user gives none.

    Example::

        @hookimpl
        def lmflow_register_tuners():
            yield TunerSpec(
                name="bitfit",
                target="lmflow_bitfit.tuner:BitFitTuner",
                summary="Train the biases only.",
                learning_rate=1e-4,
            )
    """

    kind: ClassVar[str] = "tuner"
    contract: ClassVar[type | None] = Tuner
    selector: ClassVar[Selector | None] = Selector("tuner", "Which parameters train.", {"finetune": "full"})
    learning_rate: float = 2e-5
    adapter_file: str | None = None
