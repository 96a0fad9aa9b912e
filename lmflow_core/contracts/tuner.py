"""Tuners: which parameters train, and how they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.contracts.spec import Selector, Spec


class Tuner(Protocol):
    """Target of a ``TunerSpec``: which parameters train, and how they are kept."""

    def prepare(self, model: LanguageModel, seed: int) -> None:
        """Mark what trains in a loaded model, wrapping it where needed; fresh weights are drawn from the seed."""

    def trainer_extensions(self, model: LanguageModel, settings: TrainingSettings) -> Mapping[str, Any]:
        """Return what the tuner adds to the trainer: ``optimizer``, ``callbacks``, ``arguments``, each optional.

        A callback with a method ``save_into(folder)`` puts state of its own into each checkpoint.
        """

    def save(self, model: LanguageModel, folder: Path, chat_template: str | None) -> None:
        """Write the result of training into an existing folder."""

    def attach(self, model: LanguageModel, folder: Path) -> None:
        """Put an adapter of this tuner on a loaded model; tuners without adapters raise ``ModelError``."""

    def base_reference(self, folder: Path) -> str | None:
        """Return the reference of the model an adapter was made for, when its folder tells."""


@dataclass(frozen=True, kw_only=True)
class TunerSpec(Spec):
    """Which parameters train and how they are kept; ``target(options)`` satisfies ``Tuner``.

    ``adapter_file`` is the file that marks a folder as an adapter of this tuner, when it makes adapters.
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
