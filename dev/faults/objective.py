"""Objectives, the first of which is sound; each of the others has the fault its docstring names."""

import dataclasses

import torch

from lmflow_transformers.api import LossOutput, sequence_logprobs, train


class _Likelihood:
    unit = "texts"

    def units(self, batch):
        return len(batch.groups) - 1

    def __call__(self, network, batch):
        return LossOutput(self.value(-sequence_logprobs(network, batch)))

    def value(self, losses):
        return losses.sum()


class Sound:
    """Learns whole texts."""

    def __init__(self, options=None):
        self.options = options

    def loss(self, job):
        return _Likelihood()

    def plan(self, plan):
        return plan

    def check(self, setup):
        pass

    def train(self, job):
        return train(job, self.loss(job))


class Backwards(Sound):
    """Makes texts less likely."""

    def loss(self, job):
        class Reward(_Likelihood):
            def __call__(self, network, batch):
                losses = -sequence_logprobs(network, batch)
                return LossOutput(losses.detach().sum() * 2 - losses.sum())

        return Reward()


class MeanOfParts(Sound):
    """Gives the mean of a pass, where its sum is asked for."""

    def loss(self, job):
        class Mean(_Likelihood):
            def value(self, losses):
                return losses.mean()

        return Mean()


class Noisy(Sound):
    """Adds noise that no seed determines."""

    def loss(self, job):
        class Noise(_Likelihood):
            def value(self, losses):
                return losses.sum() * (1 + 0.01 * torch.rand((), generator=self._source))

            _source = torch.Generator()
            _source.seed()

        return Noise()


class ThawsAll(Sound):
    """Lets weights train that the tuner froze."""

    def train(self, job):
        job.model.network.requires_grad_(True)
        return super().train(job)


class LeavesHook(Sound):
    """Leaves a hook on the network."""

    def train(self, job):
        job.model.network.register_forward_hook(lambda *_: None)
        return super().train(job)


class Remembers(Sound):
    """Weights the loss by passes so far, which no checkpoint holds."""

    def loss(self, job):
        class Growing(_Likelihood):
            passes = 0

            def value(self, losses):
                self.passes += 1
                return losses.sum() * (1 + 0.1 * self.passes)

        return Growing()


class NoUnit(Sound):
    """Does not say what its loss is the mean over."""

    def train(self, job):
        return dataclasses.replace(super().train(job), unit="")


class AddsTokens(Sound):
    """Adds a token to the tokenizer."""

    def train(self, job):
        report = super().train(job)
        job.model.tokenizer.inner.add_special_tokens({"additional_special_tokens": ["<new>"]})
        vars(job.model.tokenizer).pop("fingerprint", None)
        return report


class NoPlan(Sound):
    """Forgets to give the plan back."""

    def plan(self, plan):
        pass
