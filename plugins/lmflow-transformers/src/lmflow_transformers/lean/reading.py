"""The last layer's MLP, computed at the positions that are read and at no others.

What leaves the last layer at a position goes to the head and to no other position, so the MLP of that layer, three
quarters of it, need not see positions that nobody reads: a prompt, or all of a text but its last token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lmflow_transformers.devices import rows_of_kernels

Pass = Callable[[torch.Tensor], torch.Tensor]
# From this share of the positions on, gathering and scattering cost what the MLP saves.
_MOST = 0.9


@contextmanager
def reading(network: Any, places: torch.Tensor, length: int) -> Iterator[None]:
    """For the time of the context, let what a network's trunk gives be right at some positions only.

    Args:
        network: a transformers model; adapters may be inside of it.
        places: the positions that are read: (length,), bool, or (n,), int64.
        length: how many positions go through it.
    """
    mlp = _last_mlp(network)
    places = places.nonzero()[:, 0] if places.dtype == torch.bool else places
    if mlp is None or not 0 < len(places) <= _MOST * length:
        yield
        return
    changed = "forward" in vars(mlp)
    forward = mlp.forward
    mlp.forward = _at(forward, places)
    try:
        yield
    finally:
        if changed:
            mlp.forward = forward
        else:
            del mlp.forward


def _at(
    forward: Callable[[torch.Tensor], torch.Tensor], places: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    def at_places(hidden: torch.Tensor) -> torch.Tensor:
        count = len(places)
        more = -count % rows_of_kernels(hidden.device, hidden.dtype)
        found = forward(hidden.index_select(1, torch.cat((places, places[:1].expand(more)))))[:, :count]
        return found.new_zeros(*hidden.shape[:-1], found.shape[-1]).index_copy(1, places, found)

    return at_places


def _last_mlp(network: Any) -> Any:
    """Return the MLP of the last layer, or None where there is none, or backward comes by it a second time."""
    layers = getattr(network.base_model.get_decoder(), "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or not len(layers) or network.is_gradient_checkpointing:
        return None
    mlp = getattr(layers[-1], "mlp", None)
    return mlp if hasattr(mlp, "down_proj") else None
