"""What is trained on: of the encoded examples those that teach something, with the reference's log-probabilities."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lmflow_core.api import IGNORE, DataError, EncodedDataset, EncodedExample, EncodedSequence
from lmflow_preference.options import DpoOptions
from lmflow_transformers.api import LeftOut, Selected, TorchJob, check_different, keep_useful

REFERENCE = "reference_logprobs"
_NO_ANSWER = "an answer has no token to learn"


@dataclass
class Pairs:
    """Pairs of answers, the chosen one first. Satisfies ``EncodedDataset``.

    Attributes:
        source: the encoded examples.
        chosen: for each pair the position of its example there, and which two of its sequences they are.
        reference: for each pair log-probabilities of both answers; None where the loss needs none, or before they
            are known.
    """

    source: EncodedDataset
    chosen: Sequence[tuple[int, int, int]]
    reference: Sequence[tuple[float, ...]] | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> EncodedExample:
        place, better, worse = self.chosen[position]
        sequences = self.source[place].sequences
        numbers = {} if self.reference is None else {REFERENCE: self.reference[position]}
        return EncodedExample((sequences[better], sequences[worse]), numbers)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each pair."""
        return [self[position].tokens for position in range(len(self))]


@dataclass
class Verdicts:
    """Answers with a verdict, each beside an answer that belongs to another prompt. Satisfies ``EncodedDataset``.

    Attributes:
        source: the encoded examples.
        chosen: for each the position of its example there, and of that whose answer stands behind its prompt too.
        longest: most tokens of a sequence, at which the second is cut.
        reference: for each log-probabilities of both answers; None before they are known.
    """

    source: EncodedDataset
    chosen: Sequence[tuple[int, int]]
    longest: int
    reference: Sequence[tuple[float, ...]] | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> EncodedExample:
        place, other = self.chosen[position]
        example = self.source[place]
        own, answer = example.sequences[0], self.source[other].sequences[0]
        numbers = dict(example.numbers)
        if self.reference is not None:
            numbers[REFERENCE] = self.reference[position]
        return EncodedExample((own, _with_answer(own, answer, self.longest)), numbers)

    def lengths(self) -> list[int]:
        """Return the number of tokens of each example, both sequences together."""
        return [self[position].tokens for position in range(len(self))]


def pairs_of(data: EncodedDataset, options: DpoOptions, seed: int, *, told: bool) -> Pairs:
    """Return the pairs of some encoded examples; ``told`` says whether this process tells what is left out.

    Raises:
        DataError: none is left.
    """

    def pair(position: int) -> tuple[int, int, int]:
        better, worse = _pair(data[position], options.dpo_pairing, random.Random(f"{seed} {position}"))
        sequences = data[position].sequences
        _check_pair(sequences[better], sequences[worse], options.max_prompt_length)
        return position, better, worse

    return Pairs(data, keep_useful(data, pair, "pairs", told=told))


def verdicts_of(data: EncodedDataset, max_prompt: int | None, *, told: bool) -> Verdicts:
    """Return the judged answers of some encoded examples; ``told`` says whether this process tells what is left out.

    Raises:
        DataError: none is left.
    """

    def answer(position: int) -> int:
        _check_prompt(data[position].sequences[0], max_prompt)
        return position

    kept = keep_useful(data, answer, "answers", told=told)
    prompts = [tuple(_prompt(data[position].sequences[0])) for position in kept]
    longest = max(len(data[position].sequences[0].input_ids) for position in kept)
    return Verdicts(data, [(place, kept[_mismatched(prompts, at)]) for at, place in enumerate(kept)], longest)


def prompts_of(job: TorchJob, max_prompt: int | None, *, told: bool) -> TorchJob:
    """Return a job without the prompts that are too long; ``told`` says whether this process tells how many.

    Raises:
        DataError: none is left.
    """
    if max_prompt is None:
        return job
    validation = None if job.validation is None else _short(job.validation, max_prompt, told)
    return dataclasses.replace(job, data=_short(job.data, max_prompt, told), validation=validation)


def _short(data: EncodedDataset, most: int, told: bool) -> Selected:
    lengths = data.lengths()

    def place(position: int) -> int:
        if lengths[position] > most:
            raise LeftOut(_too_long(most))
        return position

    return Selected(data, keep_useful(data, place, "prompts", told=told))


def answer_start(sequence: EncodedSequence) -> int:
    """Return where what is learned begins.

    Raises:
        LeftOut: nothing is.
    """
    for place, label in enumerate(sequence.labels):
        if label != IGNORE:
            return place
    raise LeftOut(_NO_ANSWER)


def _prompt(sequence: EncodedSequence) -> Sequence[int]:
    return sequence.input_ids[: answer_start(sequence)]


def _with_answer(own: EncodedSequence, other: EncodedSequence, longest: int) -> EncodedSequence:
    """Return the prompt of one sequence with the answer of another."""
    start, begin = answer_start(own), answer_start(other)
    ids = [*own.input_ids[:start], *other.input_ids[begin:]]
    labels = [*own.labels[:start], *other.labels[begin:]]
    before = tuple(media for media in own.media if media.start < start)
    return EncodedSequence(ids[:longest], labels[:longest], before)


def _mismatched(prompts: Sequence[tuple[int, ...]], at: int) -> int:
    """Return the example whose answer stands behind this one's prompt: the next that has another prompt, if any.

    Rows of one prompt mostly stand together; behind so many of them the next is taken all the same.
    """
    following = [(at + step) % len(prompts) for step in range(1, min(len(prompts), 64))]
    return next((other for other in following if prompts[other] != prompts[at]), following[0] if following else at)


def _pair(example: EncodedExample, pairing: str, chance: random.Random) -> tuple[int, int]:
    """Return which sequence is the chosen one and which the rejected.

    Raises:
        LeftOut: no answer is better than another.
        DataError: there are no scores to tell.
    """
    scores = example.numbers.get("scores")
    if scores is None and len(example.sequences) == 2:
        return 0, 1
    if scores is None or any(map(math.isnan, scores)):
        raise DataError(
            "--objective dpo: several answers without scores do not tell which is better; give each a score"
        )
    return pair_of(scores, pairing, chance)


def pair_of(scores: Sequence[float], pairing: str, chance: random.Random) -> tuple[int, int]:
    """Return which of some answers make a pair, the better one first.

    Args:
        scores: of the answers.
        pairing: one of :data:`~lmflow_preference.options.PAIRINGS`.
        chance: decides where several would do.

    Raises:
        LeftOut: no answer is better than another.
    """
    better = [(one, two) for one in range(len(scores)) for two in range(len(scores)) if scores[one] > scores[two]]
    if not better:
        raise LeftOut("no answer has a better score than another")
    if pairing == "random":
        return chance.choice(better)
    best = scores.index(max(scores))
    worse = sorted((two for one, two in better if one == best), key=lambda two: -scores[two])
    return best, {"max_min": worse[-1], "max_max": worse[0], "max_random": chance.choice(worse)}[pairing]


def _check_pair(chosen: EncodedSequence, rejected: EncodedSequence, max_prompt: int | None) -> None:
    for sequence in (chosen, rejected):
        _check_prompt(sequence, max_prompt)
    check_different(chosen, rejected)


def _check_prompt(sequence: EncodedSequence, longest: int | None) -> None:
    start = answer_start(sequence)
    if longest is not None and start > longest:
        raise LeftOut(_too_long(longest))


def _too_long(most: int) -> str:
    return f"the prompt is longer than --max-prompt-length {most}"
