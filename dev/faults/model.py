"""Models, one of which is sound; each of the others has the fault its docstring names."""

from dataclasses import replace
from pathlib import Path

import torch

from lmflow_core.api import IGNORE, Score
from lmflow_transformers.api import CausalModel, CausalModelLoader


class Sound:
    """Opens folders."""

    def open(self, reference, settings):
        model = CausalModelLoader().open(reference, settings)
        model.__class__ = self.kind()
        return model

    def kind(self):
        return CausalModel


class LoadsAtOnce(Sound):
    """Loads the weights while it opens."""

    def open(self, reference, settings):
        model = super().open(reference, settings)
        model.load()
        return model


class OpensAnything(Sound):
    """Makes up a model where there is none."""

    def open(self, reference, settings):
        if not (Path(reference) / "config.json").is_file():
            raise FileNotFoundError(reference)
        return super().open(reference, settings)


class WritesThere(Sound):
    """Keeps a cache in the folder of the model."""

    def open(self, reference, settings):
        model = super().open(reference, settings)
        (Path(reference) / "opened").write_text("again\n", encoding="utf-8")
        (Path(reference) / "opened").write_bytes(torch.rand(4).numpy().tobytes())
        return model


class CountsIgnored(Sound):
    """Counts tokens that have no label."""

    def kind(self):
        class Model(CausalModel):
            def score(self, sequences):
                return (replace(score, tokens=score.tokens + 1) for score in super().score(sequences))

        return Model


class ScoresAll(Sound):
    """Scores tokens without labels too."""

    def kind(self):
        class Model(CausalModel):
            def score(self, sequences):
                return super().score(replace(each, labels=each.input_ids) for each in sequences)

        return Model


class MeansOver(Sound):
    """Gives the mean where a sum is due."""

    def kind(self):
        class Model(CausalModel):
            def score(self, sequences):
                return (replace(score, nll=score.nll / max(1, score.tokens)) for score in super().score(sequences))

        return Model


class SortsFirst(Sound):
    """Gives scores in the order of lengths."""

    def kind(self):
        class Model(CausalModel):
            def score(self, sequences):
                return super().score(sorted(sequences, key=lambda each: len(each.input_ids)))

        return Model


class SeesCompany(Sound):
    """Lets a sequence see the one before it."""

    def kind(self):
        class Model(CausalModel):
            def score(self, sequences):
                before = []
                for each in sequences:
                    unlabelled = [IGNORE] * len(before)
                    joined = replace(
                        each, input_ids=[*before, *each.input_ids], labels=[*unlabelled, IGNORE, *each.labels[1:]]
                    )
                    (score,) = super().score([joined])
                    before = list(each.input_ids)
                    yield Score(score.nll, score.tokens)

        return Model


class Sharper(Sound):
    """Has other weights than its files."""

    def kind(self):
        class Model(CausalModel):
            def load(self):
                loaded = self._network is not None
                super().load()
                if not loaded:
                    with torch.no_grad():
                        self.network.model.norm.weight.mul_(1.1)

        return Model


class ReadsControl(Sound):
    """Reads control tokens from plain text."""

    def open(self, reference, settings):
        model = super().open(reference, settings)
        inner = model.tokenizer.inner

        class Reading(type(model.tokenizer)):
            def encode(self, texts, continues):
                return [inner(text, add_special_tokens=False).input_ids for text in texts]

        model.tokenizer.__class__ = Reading
        return model


class TakesAnyPlan(Sound):
    """Takes plans that it does not follow."""

    def kind(self):
        class Model(CausalModel):
            def accept(self, plan):
                super().accept(replace(plan, task="causal", quantization=None))

        return Model


class SavesPickled(Sound):
    """Saves its weights as a pickle too."""

    def kind(self):
        class Model(CausalModel):
            def save(self, folder, chat_template, weights=None):
                super().save(folder, chat_template, weights)
                torch.save({}, folder / "extra.bin")

        return Model
