"""Full fine-tuning, and what every tuner of transformers models shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelError, TrainingSettings
from lmflow_transformers.models import CausalModel


class FullTuner:
    """Trains every parameter; the result is a whole model."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Let every parameter train.

        Raises:
            ModelError: the model carries an adapter.
        """
        if hasattr(model.network, "peft_config"):
            raise ModelError("--tuner full on a model with an adapter: merge it first with lmflow merge")
        model.network.requires_grad_(True)

    def trainer_extensions(self, model: CausalModel, settings: TrainingSettings) -> Mapping[str, Any]:
        """Add nothing to the trainer."""
        return {}

    def save(self, model: CausalModel, folder: Path, chat_template: str | None) -> None:
        """Write the whole model."""
        model.save(folder, chat_template)

    def attach(self, model: CausalModel, folder: Path) -> None:
        """Refuse: full fine-tuning makes no adapters."""
        raise ModelError("full fine-tuning makes whole models, not adapters: use --model with the folder")

    def base_reference(self, folder: Path) -> str | None:
        """Return nothing: a whole model has no base."""
        return None
