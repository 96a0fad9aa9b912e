"""A training job whose model runs in torch."""

from __future__ import annotations

from collections.abc import Callable

from lmflow_core.api import EncodedExample, TrainingJob
from lmflow_transformers.models import CausalModel

TorchJob = TrainingJob[CausalModel]
# Makes, of the examples of a step and its number, those that are trained on: answers to prompts, for one. All processes
# call it, each with examples of its own, before each step and with the weights of that step.
Rollout = Callable[[list[EncodedExample], int], list[EncodedExample]]
