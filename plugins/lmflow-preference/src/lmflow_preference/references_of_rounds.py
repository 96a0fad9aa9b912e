"""What the answers of a round are compared by: the model before the run, before the round, or another one."""

from __future__ import annotations

import dataclasses

from lmflow_core.api import EncodedExample
from lmflow_preference.options import IterativeDpoOptions
from lmflow_preference.reference import opened_reference
from lmflow_transformers.api import CausalModel, TorchJob, measure_sequences, sequence_logprobs

PRESENT = "present_logprobs"
_Logprobs = list[tuple[float, ...]]


def by_the_model(job: TorchJob, examples: list[EncodedExample], step: int | None) -> _Logprobs:
    """Return the log-probability of each answer by the weights of the moment."""
    return measure_sequences(job, examples, sequence_logprobs, whole=True)


class RoundReference:
    """Measures the log-probabilities of answers by the reference. Satisfies ``Measurement``.

    The weights before the run are those of the model itself before its first step, and those below its adapter where
    the tuner can set it aside. Else a second model is loaded for the time of measuring, and given up before training.
    """

    def __init__(self, job: TorchJob, options: IterativeDpoOptions) -> None:
        self._job, self._options = job, options

    def __call__(self, examples: list[EncodedExample], step: int | None) -> _Logprobs:
        """Return the log-probability of each answer.

        Raises:
            ModelError: a second model cannot be opened or loaded.
        """
        job, options = self._job, self._options
        if options.reference_model is not None:
            return self._by_another(opened_reference(options.reference_model, job.model, job.services), examples)
        if step == 0 or options.iterative_reference == "round":
            return by_the_model(job, examples, step)
        before = job.tuner.reference(job.model)
        if before is not None:
            with before:
                return by_the_model(job, examples, step)
        return self._by_another(self._before_the_run(), examples)

    def _by_another(self, model: CausalModel, examples: list[EncodedExample]) -> _Logprobs:
        model.load()
        try:
            return measure_sequences(self._job, examples, sequence_logprobs, model, whole=True)
        finally:
            if model.adapter is None:  # one with an adapter comes loaded, and would come back without it
                model.network = None

    def _before_the_run(self) -> CausalModel:
        model = self._job.model
        if model.adapter is not None:
            return opened_reference(str(model.adapter), model, self._job.services)
        before = opened_reference(model.reference, model, self._job.services)
        before.accept(dataclasses.replace(model.plan, sharded=False, sharded_state=False))
        return before
