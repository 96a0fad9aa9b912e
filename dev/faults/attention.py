"""Attentions, some of which are sound; each of the others has the fault its docstring names."""

import itertools

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from lmflow_core.api import RequestError
from lmflow_transformers.api import register_attention

_numbers = itertools.count()


class Sound:
    """Writes the attention out."""

    def __init__(self, options=None): ...

    def implementation(self, device):
        if device not in ("cpu", "auto"):
            raise RequestError(f"no attention for {device}")
        return register_attention(f"planted_{type(self).__name__.lower()}", self.attend)

    def attend(self, inputs):
        if inputs.softcap is not None or inputs.sinks is not None:
            raise RequestError("no capped scores and no sinks")
        return inputs.per_sequence(lambda q, k, v: self.one(inputs, q, k, v))

    def scores(self, inputs, query, key):
        return query @ key.mT * (inputs.scaling or query.shape[-1] ** -0.5)

    def seen(self, inputs, queries, keys):
        seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        return seen if inputs.window is None else seen.triu(keys - queries + 1 - inputs.window)

    def one(self, inputs, query, key, value):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        seen = self.seen(inputs, query.shape[2], key.shape[2])
        return self.scores(inputs, query, key).masked_fill(~seen, -1e30).softmax(-1) @ value


class SoundBuiltIn:
    """Takes transformers' own, which tells sequences by their positions."""

    def __init__(self, options=None): ...

    def implementation(self, device):
        return "sdpa"


class IgnoresBoundaries(Sound):
    """Lets packed sequences see those before them."""

    def attend(self, inputs):
        return self.one(inputs, inputs.query, inputs.key, inputs.value).transpose(1, 2)


class LooksAhead(Sound):
    """Lets tokens see those behind them."""

    def seen(self, inputs, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool)


class ForgetsScale(Sound):
    """Does not divide scores by the root of the size of a head."""

    def scores(self, inputs, query, key):
        return query @ key.mT


class RoundsScores(Sound):
    """Computes scores in half precision."""

    def scores(self, inputs, query, key):
        return super().scores(inputs, query.bfloat16(), key.bfloat16()).float()


class CutsGradient(Sound):
    """Lets no gradient reach the queries."""

    def scores(self, inputs, query, key):
        return super().scores(inputs, query.detach(), key)


class IgnoresWindow(Sound):
    """Sees beyond a sliding window."""

    def seen(self, inputs, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


class ForgetsCache(Sound):
    """Takes the causal kernel where queries are fewer than keys, which aligns their first."""

    def one(self, inputs, query, key, value):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=inputs.scaling, enable_gqa=True)


class ReplacesAnother(Sound):
    """Takes the place of transformers' own."""

    def implementation(self, device):
        name = super().implementation(device)
        AttentionInterface.register("flex_attention", AttentionInterface()[name])
        return name


class UnknownName(Sound):
    """Gives a name under which nothing is registered."""

    def implementation(self, device):
        return "planted_nothing"


class NewNames(Sound):
    """Registers itself anew whenever it is asked."""

    def implementation(self, device):
        return register_attention(f"planted_new_{next(_numbers)}", self.attend)


class CrashesOnDevices(Sound):
    """Looks at a device without knowing whether it is there."""

    def implementation(self, device):
        torch.empty(1, device=device)
        return register_attention("planted_crashing", self.attend)
