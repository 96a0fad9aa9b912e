"""Benchmarks, the first of which is sound; each of the others has the fault its docstring names."""

import random
from pathlib import Path

from lmflow_core.api import BenchmarkReport, EncodedSequence, Grid

_TEXT = list(range(5, 25))


class Sound:
    """Measures how many tokens of a text the model expects."""

    def __init__(self, options=None):
        pass

    def run(self, model):
        (score,) = model.score([EncodedSequence(_TEXT, _TEXT)])
        share = (score.correct or 0) / score.tokens
        return BenchmarkReport(self.metrics(share, score), self.grid(share))

    def metrics(self, share, score):
        return {"share": share, "nll": score.nll}

    def grid(self, share):
        return Grid("Share", "length", ("20",), "depth", ("0%",), ((share,),))


class ByChance(Sound):
    """Finds another figure each time."""

    def metrics(self, share, score):
        return {"share": random.random()}


class NotANumber(Sound):
    """Divides by nothing."""

    def metrics(self, share, score):
        return {"share": float("nan")}


class Written(Sound):
    """Gives a figure as a text."""

    def metrics(self, share, score):
        return {"share": f"{share:.0%}"}


class Silent(Sound):
    """Finds nothing."""

    def metrics(self, share, score):
        return {}


class Percent(Sound):
    """Draws percents, where a share is asked for."""

    def grid(self, share):
        return Grid("Share", "length", ("20",), "depth", ("0%",), ((100 * share + 2,),))


class Turned(Sound):
    """Has rows and columns the other way round."""

    def grid(self, share):
        return Grid("Share", "length", ("20", "40"), "depth", ("0%",), ((share,), (share,)))


class Teaches(Sound):
    """Changes the weights that it measures."""

    def run(self, model):
        report = super().run(model)
        model.network.get_input_embeddings().weight.data.mul_(1.01)
        return report


class LeavesTraining(Sound):
    """Leaves the network in the mode of training."""

    def run(self, model):
        report = super().run(model)
        model.network.train()
        return report


class Crashes(Sound):
    """Fails at a model that lacks what it needs."""

    def run(self, model):
        return super().run(model.media.tokenize)


class Litters(Sound):
    """Writes what it found where it is called."""

    def run(self, model):
        report = super().run(model)
        Path("found.txt").write_text(str(report), encoding="utf-8")
        return report


class GivesFigures(Sound):
    """Gives the figures without a report."""

    def run(self, model):
        return super().run(model).metrics


class TellsObjects(Sound):
    """Keeps what no file can hold."""

    def run(self, model):
        report = super().run(model)
        return BenchmarkReport(report.metrics, samples=[{"text": object()}])


class SoundOnSets(Sound):
    """Measures data sets one by one."""

    def sets(self, given):
        return {path.as_posix(): path for path in given}

    def run(self, model, data, answers):
        metrics = {}
        for name, each in data.items():
            rows = [each.examples[place].sequences[0] for place in range(len(each.examples))]
            scores = list(model.score(window for row in rows for window in each.windows(row)))
            (answer,) = answers([list(rows[0].input_ids[:4])], max_new_tokens=2)
            metrics |= {f"{name} nll": sum(score.nll for score in scores), f"{name} tokens": len(answer.ids)}
        return BenchmarkReport(metrics)


class LosesSets(SoundOnSets):
    """Measures one of two data sets whose files have one name."""

    def sets(self, given):
        return {path.stem: path for path in given}


class SamplesAnswers(SoundOnSets):
    """Tells answers that are sampled, each time by another seed."""

    def run(self, model, data, answers):
        seed = random.randrange(2**31)
        (answer,) = answers([[5, 6, 7]], max_new_tokens=8, seed=seed, options={"temperature": 5.0})
        return BenchmarkReport({"sum": float(sum(answer.ids))})
