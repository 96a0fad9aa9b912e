"""Decoders, some of which are sound; each of the others has the fault its docstring names."""

import random
from dataclasses import replace

import torch

from lmflow_core.api import DecodeStep, TokenLogprob
from lmflow_transformers.api import SamplingDecoder, TokenChooser
from lmflow_transformers.options import SamplingOptions


class Sound(SamplingDecoder):
    """Samples."""


class _Plain:
    """Samples without a cache; what a fault changes are methods."""

    def __init__(self, options=None):
        self.options = options or SamplingOptions()

    def prepare(self, model, services): ...

    def open_batch(self, model, limits): ...

    def probabilities(self, logits):
        if not self.options.temperature:
            return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
        return (logits / self.options.temperature).softmax(-1)

    def source(self, request):
        return torch.Generator().manual_seed(request.seed)

    def logits(self, model, ids):
        with torch.inference_mode():
            return model.network(input_ids=torch.tensor([list(ids)])).logits[0, -1]

    def decode(self, model, request):
        ids, source = list(request.prompt), self.source(request)
        for _ in range(request.max_new_tokens):
            token = int(torch.multinomial(self.probabilities(self.logits(model, ids)), 1, generator=source))
            ids.append(token)
            yield DecodeStep((token,), logprobs=self.told(model, ids))
            if token in request.stop_ids:
                return

    def told(self, model, ids):
        if self.options.logprobs is None:
            return ()
        logprobs = _Plain.logits(self, model, ids[:-1]).log_softmax(-1)
        best = logprobs.topk(self.options.logprobs)
        alternatives = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return (TokenLogprob(logprobs[ids[-1]].item(), tuple(alternatives)),)


class SoundPlain(_Plain):
    """Samples without a cache, one answer at a time."""


class SlightlyFlat(_Plain):
    """Samples at a temperature of 1.3 times that which was asked for."""

    def probabilities(self, logits):
        return (
            (logits / (1.3 * self.options.temperature)).softmax(-1)
            if self.options.temperature
            else super().probabilities(logits)
        )


class IgnoresTemperature(_Plain):
    """Samples at temperature 1 whatever was asked for."""

    def probabilities(self, logits):
        return logits.softmax(-1) if self.options.temperature else super().probabilities(logits)


class SecondBest(_Plain):
    """Takes the likeliest token that is not the last one, even when greedy."""

    def logits(self, model, ids):
        logits = super().logits(model, ids).clone()
        logits[ids[-1]] = float("-inf")
        return logits


class KeepsDrafts(_Plain):
    """Keeps every second token from a drafter: the model without the beginning of the text."""

    def logits(self, model, ids):
        return super().logits(model, ids if len(ids) % 2 == 0 else ids[-2:])


class RunsOn(_Plain):
    """Looks for the end in every second token only."""

    def decode(self, model, request):
        for place, step in enumerate(super().decode(model, replace(request, stop_ids=frozenset()))):
            yield step
            if place % 2 and step.ids[-1] in request.stop_ids:
                return


class OneTooMany(_Plain):
    """Counts the token before the answer as one of its tokens."""

    def decode(self, model, request):
        yield from super().decode(model, replace(request, max_new_tokens=request.max_new_tokens + 1))


class ForgetsSeed(_Plain):
    """Takes its random numbers from the whole process."""

    def source(self, request):
        return torch.Generator().manual_seed(random.getrandbits(32))


class OneSeed(_Plain):
    """Answers alike whatever the seed."""

    def source(self, request):
        return torch.Generator().manual_seed(42)


class GivesTensors(_Plain):
    """Gives tokens as tensors."""

    def decode(self, model, request):
        for step in super().decode(model, request):
            yield replace(step, ids=tuple(torch.tensor(step.ids)))


class SharpenedLogprobs(SamplingDecoder):
    """Tells log-probabilities of another distribution than the model's."""

    def decode(self, model, request):
        for step in super().decode(model, request):
            yield replace(step, logprobs=tuple(replace(told, logprob=2 * told.logprob) for told in step.logprobs))


class SharesState(_Plain):
    """Keeps the source of random numbers of the answer that began last."""

    def source(self, request):
        self._source = super().source(request)
        return self._source

    def decode(self, model, request):
        ids, _ = list(request.prompt), self.source(request)
        for _ in range(request.max_new_tokens):
            probabilities = self.probabilities(self.logits(model, ids))
            ids.append(int(torch.multinomial(probabilities, 1, generator=self._source)))
            yield DecodeStep((ids[-1],))
            if ids[-1] in request.stop_ids:
                return


class UsesOpenersOptions(SamplingDecoder):
    """In a batch, chooses by the options of the decoder that opened it."""

    _opener = None

    def open_batch(self, model, limits):
        UsesOpenersOptions._opener = self
        return super().open_batch(model, limits)

    def chooser(self, model, request):
        return TokenChooser(model, (UsesOpenersOptions._opener or self).options, request)


class _Unbounded:
    def __init__(self, batch):
        self._batch = batch

    def __getattr__(self, name):
        return getattr(self._batch, name)

    def check(self, request, decoder): ...


class NeverRefuses(SamplingDecoder):
    """Takes requests that no cache can hold, when it is asked before."""

    def open_batch(self, model, limits):
        return _Unbounded(super().open_batch(model, limits))


class LoadsWhenMade(_Plain):
    """Gets ready when it is made."""

    def __init__(self, options=None):
        super().__init__(options)
        self._draft = torch.nn.Linear(3000, 3000)


class NothingBeyond(_Plain):
    """Says that no prompt is too long, and gives nothing behind a long one."""

    def decode(self, model, request):
        if len(request.prompt) < model.context_length:
            yield from super().decode(model, request)
