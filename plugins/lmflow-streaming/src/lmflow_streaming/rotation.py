"""How a network rotates its keys, measured, so that a key can be moved to another position without the text behind it.

A text of one token attends to itself alone, so nothing in it depends on its position but the rotation of its keys. Its
keys at two positions therefore tell, for every layer, which features turn together and how fast: nothing is believed
of an architecture.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from lmflow_core.api import RequestError
from lmflow_transformers.api import CausalModel, for_decoding

_FAR = 97
_TOLERANCE = {torch.float32: 1e-3}
_COARSE = 3e-2
_Kept = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Rotation:
    """How the keys of a layer turn with their position.

    Attributes:
        frequencies: (pairs,), float32, radians per position.
        interleaved: features 2i and 2i + 1 turn together; else i and i + pairs. Those behind 2 * pairs do not turn.
    """

    frequencies: torch.Tensor
    interleaved: bool

    def moved(self, keys: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        """Return keys (..., head size) as they would be ``by`` positions later; ``by`` broadcasts with (...).

        The rotation is computed in float32.
        """
        angles = by[..., None].float() * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        turning, still = keys.split([2 * len(self.frequencies), keys.shape[-1] - 2 * len(self.frequencies)], dim=-1)
        turning = turning.float()
        if self.interleaved:
            first, second = turning[..., ::2], turning[..., 1::2]
        else:
            first, second = turning.chunk(2, dim=-1)
        pairs = (first * cos - second * sin, second * cos + first * sin)
        turned = torch.stack(pairs, dim=-1).flatten(-2) if self.interleaved else torch.cat(pairs, dim=-1)
        return torch.cat([turned.to(keys.dtype), still], dim=-1)


_measured: weakref.WeakKeyDictionary[torch.nn.Module, tuple[Rotation | None, ...]] = weakref.WeakKeyDictionary()


def rotations(model: CausalModel) -> tuple[Rotation | None, ...]:
    """Return how each layer rotates its keys; None for a layer whose keys do not depend on the position.

    Measured once for each network, with two passes of one token.

    Raises:
        RequestError: no layer has rotary embeddings, or one has them in a way that is not known here.
    """
    if model.base not in _measured:
        _measured[model.base] = _measure(model)
    return _measured[model.base]


def _measure(model: CausalModel) -> tuple[Rotation | None, ...]:
    candidates = _candidates(model.base)
    if not candidates:
        raise RequestError(f"--decoder streaming: {model.reference} has no rotary embeddings, so no token can be moved")
    found: list[Rotation | None] = []
    for number, layer in enumerate(zip(_kept(model, 0), _kept(model, _FAR), strict=True)):
        try:
            found.append(_rotation(*layer, candidates))
        except ValueError as error:
            raise _unknown(model, f"layer {number}") from error
    if not any(found):
        raise _unknown(model, "any layer")
    return tuple(found)


def _unknown(model: CausalModel, layer: str) -> RequestError:
    return RequestError(
        f"--decoder streaming: {model.reference} does not rotate the keys of {layer} in a way that is known here, "
        "so no token can be moved"
    )


def _candidates(base: Any) -> list[Rotation]:
    """Return a rotation for each set of frequencies in a network and each way to pair features."""
    buffers = {tuple(b.tolist()): b.float() for name, b in base.named_buffers() if name.endswith("inv_freq")}
    return [Rotation(each, interleaved) for each in buffers.values() for interleaved in (False, True)]


def _kept(model: CausalModel, position: int) -> list[_Kept]:
    """Return what each layer keeps of one token at a position: keys and values, (1, heads, 1, head size)."""
    token = model.base.get_input_embeddings().weight.shape[0] // 2
    cache = DynamicCache()
    model.network(
        input_ids=torch.tensor([[token]], device=model.device),
        position_ids=torch.tensor([[position]], device=model.device),
        **for_decoding(model.network, cache),
    )
    return [(layer.keys, layer.values) for layer in cache.layers]


def _rotation(here: _Kept, there: _Kept, candidates: list[Rotation]) -> Rotation | None:
    """Return what takes a layer's keys from position 0 to another one; None where they stay as they are.

    Raises:
        ValueError: it is no rotation among the candidates.
    """
    if not _alike(here[1], there[1]):
        raise ValueError("the values depend on the position")
    if _alike(here[0], there[0]):
        return None
    by = torch.tensor(_FAR, device=here[0].device)
    for each in candidates:
        if 2 * len(each.frequencies) <= here[0].shape[-1] and _alike(each.moved(here[0], by), there[0]):
            return each
    raise ValueError("the keys turn in another way")


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    distance = (one.float() - other.float()).norm() / other.float().norm()
    return bool(distance < _TOLERANCE.get(other.dtype, _COARSE))
