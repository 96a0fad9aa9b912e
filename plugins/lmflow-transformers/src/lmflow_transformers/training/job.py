"""A training job whose model runs in torch."""

from __future__ import annotations

from collections.abc import Callable

from lmflow_core.api import EncodedExample, TrainingJob
from lmflow_transformers.models import CausalModel

# A ``TrainingJob`` whose model is a ``CausalModel``.
TorchJob = TrainingJob[CausalModel]
# Makes, of the examples of a batch and the number of the step, those that are trained on, at least one: answers to
# prompts, for one. All processes call it equally often, each with examples of its own: before each step, with the
# weights of that step, and with number 0 for each batch of validation data.
Rollout = Callable[[list[EncodedExample], int], list[EncodedExample]]
