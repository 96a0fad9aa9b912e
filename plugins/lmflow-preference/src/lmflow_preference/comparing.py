"""What the objectives share that compare a model with a reference."""

from __future__ import annotations

from typing import Generic, TypeVar

from lmflow_core.api import LoadPlan, TrainingSetup
from lmflow_preference.options import DpoOptions, IterativeDpoOptions, KtoOptions
from lmflow_preference.reference import check_reference
from lmflow_transformers.api import CausalModel

Options = TypeVar("Options", DpoOptions, IterativeDpoOptions, KtoOptions)


class ComparingObjective(Generic[Options]):
    """Takes any weights and tuner, and a reference that knows the same tokens.

    Attributes:
        defaults: makes the options where none are given.
    """

    defaults: type[Options]

    def __init__(self, options: Options | None = None) -> None:
        self._options: Options = options or self.defaults()

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights."""
        return plan

    def check(self, setup: TrainingSetup[CausalModel]) -> None:
        """Check the reference, where one is named.

        Raises:
            ModelError: it cannot be opened, or has another vocabulary.
        """
        check_reference(self._options.reference_model, setup.model, setup.services)
