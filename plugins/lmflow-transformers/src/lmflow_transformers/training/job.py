"""A training job whose model runs in torch."""

from __future__ import annotations

from typing import Protocol

from lmflow_core.api import EncodedExample, TrainingJob
from lmflow_transformers.models import CausalModel

# A ``TrainingJob`` whose model is a ``CausalModel``.
TorchJob = TrainingJob[CausalModel]


class Rollout(Protocol):
    """Makes, of examples of the data, those that are trained on: answers to prompts, for one.

    Attributes:
        steps: for how many steps of an epoch it makes them at a time. What it makes is dealt to them evenly, in its
            order; the last round of an epoch may be shorter.
    """

    steps: int

    def __call__(self, examples: list[EncodedExample], step: int | None) -> list[EncodedExample]:
        """Return what is trained on; a batch that gets none changes nothing.

        All processes call it equally often, each with examples of its own, or none where they run out.

        Args:
            examples: of the data, those of all its steps.
            step: the first of them, whose weights the network has; None for a batch of validation data. A run that goes
                on behind it asks again for the same step, with the examples that are left: a rollout of several steps
                remembers what it made.
        """
