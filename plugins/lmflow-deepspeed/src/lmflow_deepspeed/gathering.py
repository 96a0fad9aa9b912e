"""Weights that ZeRO stage 3 has spread over the processes, put together again."""

from __future__ import annotations

import torch


def gathered(network: torch.nn.Module, *, keep: bool) -> dict[str, torch.Tensor]:
    """Return what ``state_dict`` would give if nothing were spread, in main memory. All processes call this.

    One weight exists as a whole at a time, besides those that are kept.

    Args:
        network: what holds the weights.
        keep: whether this process wants them; others are given nothing.
    """
    from deepspeed import zero

    found: dict[int, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        # Tied weights stay one tensor, so that they are written once.
        if id(parameter) not in found:
            with zero.GatheredParameters([parameter]):
                whole = parameter.detach().cpu().clone() if keep else torch.empty(0)
            found[id(parameter)] = whole
        weights[name] = found[id(parameter)]
    buffers = {name: value for name, value in network.state_dict().items() if name not in weights}
    return {**weights, **buffers} if keep else {}
