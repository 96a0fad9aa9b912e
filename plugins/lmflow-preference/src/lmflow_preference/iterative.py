"""The objective ``iterative-dpo``: rounds of DPO on the model's own answers.

As in Xiong et al. (arXiv:2312.11456) and Dong et al. (arXiv:2405.07863): in each round prompts are answered several
times, the answers scored, two to each prompt make a pair, and the pairs are learned.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from statistics import fmean

from lmflow_core.api import RequestError, TrainingReport
from lmflow_preference.comparing import ComparingObjective
from lmflow_preference.dpo import DpoLoss
from lmflow_preference.examples import REFERENCE, pair_of, prompts_of
from lmflow_preference.options import WITHOUT_REFERENCE, IterativeDpoOptions
from lmflow_preference.references_of_rounds import PRESENT, RoundReference, by_the_model
from lmflow_transformers.api import (
    LeftOut,
    Lesson,
    Measurement,
    Sample,
    SampledRounds,
    Sampling,
    Teaching,
    TorchJob,
    for_rounds,
    places_by_prompt,
    train,
)


class IterativeDpoObjective(ComparingObjective[IterativeDpoOptions]):
    """Trains on prompts alone: in each round the model answers them, and learns which of its answers are better."""

    defaults = IterativeDpoOptions

    def train(self, job: TorchJob) -> TrainingReport:
        """Train the job's model; the report tells what each round came to.

        Raises:
            DataError: all prompts are longer than they may be.
            RequestError: validation data is to be measured against a reference that it always equals.
        """
        options, told = self._options, job.world.is_main
        compares = options.dpo_loss not in WITHOUT_REFERENCE
        if compares and options.iterative_reference == "round" and job.validation is not None:
            raise RequestError(
                "--iterative-reference round: against the weights of the moment validation data tells nothing; take "
                "start, or leave out --eval-dataset"
            )
        sampling = Sampling(
            samples=options.iterative_samples,
            max_new_tokens=options.iterative_max_new_tokens,
            temperature=options.iterative_temperature,
            round_prompts=options.iterative_round_prompts,
        )
        job = prompts_of(job, options.max_prompt_length, told=told)
        job = for_rounds(job, sampling, options.iterative_rounds)
        rounds = SampledRounds(job, sampling, self._teaching(job))
        return rounds.report(train(job, DpoLoss(options), rounds))

    def _teaching(self, job: TorchJob) -> Teaching:
        if self._options.dpo_loss in WITHOUT_REFERENCE:
            return Teaching(self.pairs)
        measurements: dict[str, Measurement] = {REFERENCE: RoundReference(job, self._options)}
        if not self._options.iterative_kl:
            return Teaching(self.pairs, measurements)
        measurements[PRESENT] = partial(by_the_model, job)
        return Teaching(self.pairs, measurements, measures_all=True, figures=divergence)

    def pairs(self, samples: Sequence[Sample]) -> list[Lesson]:
        """Return a pair of answers to each prompt, the better one first; prompts without one are left out."""
        lessons = []
        for group in places_by_prompt(samples):
            scored = [at for at in group if samples[at].scored]
            # Which are paired at random depends on nothing but the answers, as a run that goes on pairs them again.
            chance = random.Random(repr([list(samples[at].answer_ids) for at in scored]))
            try:
                better, worse = pair_of([samples[at].reward for at in scored], self._options.dpo_pairing, chance)
            except LeftOut:
                continue
            chosen, rejected = scored[better], scored[worse]
            if list(samples[chosen].answer_ids) != list(samples[rejected].answer_ids):
                lessons.append(Lesson((chosen, rejected)))
        return lessons


def divergence(samples: Sequence[Sample]) -> dict[str, float]:
    """Return how far the model was from the reference: the mean over answers of log p less that of the reference.

    It is an estimate of the divergence KL(model, reference), in nats, of answers sampled at temperature 1.
    """
    gains = [s.numbers[PRESENT][0] - s.numbers[REFERENCE][0] for s in samples if PRESENT in s.numbers]
    return {"kl": fmean(gains)} if gains else {}
