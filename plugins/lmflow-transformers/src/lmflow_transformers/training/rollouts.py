"""What the steps of a run train on where it is made while training: answers to the prompts of a step, or of a round."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from lmflow_core.api import EncodedExample
from lmflow_transformers.training.job import Rollout
from lmflow_transformers.training.packs import MicroBatches, Pack

# Runs a rollout, and returns what it makes.
Answering = Callable[[Callable[[], list[EncodedExample]]], list[EncodedExample]]
Batches = Callable[[list[EncodedExample], bool], MicroBatches]


class Rollouts:
    """Hands each step its batches.

    What a rollout makes of the prompts of several steps is dealt to these evenly, in its order: each batch gets as many
    examples as the others, or one less.
    """

    def __init__(self, rollout: Rollout, batches: Batches, answering: Answering) -> None:
        """Begin.

        Args:
            rollout: makes, of the examples of steps, those that are trained on.
            batches: makes a batch of examples, and says whether it counts.
            answering: runs a rollout while the network answers.
        """
        self._rollout, self._batches, self._answering = rollout, batches, answering
        self._waiting: deque[MicroBatches] = deque()

    def take(self, fetched: Iterator[Iterable[Pack]], count: int, step: int, step_of_epoch: int) -> list[MicroBatches]:
        """Return the batches of a step.

        Args:
            fetched: the batches of the data that come next.
            count: how many batches make this step.
            step: its number in the run.
            step_of_epoch: its number in the epoch.
        """
        if not self._waiting:
            # A run that goes on within a round is given what the whole round trains on, and leaves out what it has.
            done = step_of_epoch % self._rollout.steps
            packs = list(itertools.islice(fetched, count * (self._rollout.steps - done)))
            made = self.made(packs, step - done)
            self._waiting.extend(self._dealt(made, len(packs) + done * count)[done * count :])
        return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]

    def made(self, packs: Iterable[Iterable[Pack]], step: int | None) -> list[EncodedExample]:
        """Return what the rollout makes of some batches of the data, with the weights of the moment."""
        given = list(itertools.chain.from_iterable(itertools.chain.from_iterable(packs)))
        return self._answering(partial(self._rollout, given, step))

    def measured(self, packs: Iterable[Pack]) -> MicroBatches:
        """Return what a batch of validation data becomes."""
        (dealt,) = self._dealt(self.made([packs], None), 1)
        return dealt

    def _dealt(self, made: list[EncodedExample], parts: int) -> list[MicroBatches]:
        ends = [len(made) * number // parts for number in range(parts + 1)]
        return [self._batches(made[start:end], end > start) for start, end in itertools.pairwise(ends)]
