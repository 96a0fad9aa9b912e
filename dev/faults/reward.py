"""Rewards, the first of which is sound; each of the others has the fault its docstring names."""

import math
import random


class Sound:
    """Rewards answers that end as the row says."""

    def __init__(self, options=None):
        pass

    def prepare(self, services, beside):
        pass

    def check(self, prompt):
        if not isinstance(prompt.fields.get("answer"), str):
            raise ValueError("the row has no text in its field 'answer'")

    def score(self, answers):
        return [self.score_one(answered.prompt, answered.answer) for answered in answers]

    def score_one(self, prompt, answer):
        return float(bool(answer) and prompt.fields["answer"].endswith(answer[-1]))


class SoundWithout(Sound):
    """Cannot score an empty answer, and says so."""

    def score_one(self, prompt, answer):
        return super().score_one(prompt, answer) if answer else math.nan


class OneForAll(Sound):
    """Gives the mean."""

    def score(self, answers):
        return sum(super().score(answers)) / max(1, len(answers))


class Verdict(Sound):
    """Says whether an answer is right, where a number is due."""

    def score_one(self, prompt, answer):
        return answer in prompt.fields["answer"]


class LeavesOut(Sound):
    """Leaves out answers that are wrong."""

    def score(self, answers):
        return [score for score in super().score(answers) if score]


class Generous(Sound):
    """Gives twice what its spec calls the most."""

    def score_one(self, prompt, answer):
        return 2 * super().score_one(prompt, answer)


class ByRank(Sound):
    """Ranks answers by their length."""

    def score(self, answers):
        lengths = sorted(len(answered.answer) for answered in answers)
        return [lengths.index(len(answered.answer)) / len(lengths) for answered in answers]


class ByChance(Sound):
    """Breaks ties at random."""

    def score_one(self, prompt, answer):
        return super().score_one(prompt, answer) + random.random() / 10


class Bored(Sound):
    """Rewards what it has not seen."""

    def __init__(self, options=None):
        self._seen = set()

    def score_one(self, prompt, answer):
        new = answer not in self._seen
        self._seen.add(answer)
        return float(new)


class BestOfNone(Sound):
    """Divides by the best score, also where there is none."""

    def score(self, answers):
        scores = super().score(answers)
        best = max(scores)
        return [score + best * 0 for score in scores]


class NeedsWords(Sound):
    """Looks at the last word, which an empty answer lacks."""

    def score_one(self, prompt, answer):
        return float(answer.split()[-1] in prompt.fields["answer"])


class Unbounded(Sound):
    """Takes the logarithm of a length that may be zero."""

    def score_one(self, prompt, answer):
        return math.log(len(answer)) if answer.strip() else -math.inf


class ChecksNothing(Sound):
    """Finds out that a field is missing when it scores."""

    def check(self, prompt):
        pass


class Vague(Sound):
    """Does not say what is missing."""

    def check(self, prompt):
        if "answer" not in prompt.fields:
            raise ValueError("this row is not good enough")


class Crashes(Sound):
    """Lets the error of a dictionary out."""

    def check(self, prompt):
        prompt.fields["answer"]


class Consumes(Sound):
    """Takes the right answer out of the row."""

    def score_one(self, prompt, answer):
        return float(prompt.fields.pop("answer", "").endswith(answer[-1:]))
