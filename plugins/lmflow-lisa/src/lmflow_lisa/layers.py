"""Which layers a model has, and which of them train at a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import nn

from lmflow_core.api import RequestError


def find_layers(network: Any, attribute: str | None) -> nn.ModuleList:
    """Return a decoder's layers: the ones named, else the longest list of modules of one class in what reads text.

    Raises:
        RequestError: nothing is there under that name, or the model has no such list.
    """
    if attribute is not None:
        try:
            layers = reduce(getattr, attribute.split("."), network)
        except AttributeError as error:
            raise RequestError(f"--lisa-layers-attribute {attribute}: {error}") from error
        if isinstance(layers, nn.ModuleList):
            return layers
        raise RequestError(f"--lisa-layers-attribute {attribute} is a {type(layers).__name__}, not a list of layers")
    lists = [
        m for m in _decoder(network).modules() if isinstance(m, nn.ModuleList) and len({type(item) for item in m}) == 1
    ]
    if not lists:
        raise RequestError("this model has no list of layers to sample from: name it with --lisa-layers-attribute")
    return max(lists, key=len)


def _decoder(network: Any) -> Any:
    """Return what of a network reads text; the eyes of one that sees have layers as well."""
    return network.get_decoder() if getattr(network.config, "vision_config", None) is not None else network


def sample_layers(seed: int, number: int, count: int, layers: int, weights: Sequence[float] = ()) -> tuple[int, ...]:
    """Return the layers that train from one sample to the next.

    A sample depends on the seed and its own number alone: every rank samples the same, and a run resumed at any step
    goes on as if it had never stopped.

    Args:
        seed: of the run.
        number: of the sample, from 0.
        count: layers to sample, without repetition.
        layers: how many there are.
        weights: relative chance of each; equal when empty.
    """
    generator = torch.Generator().manual_seed(_mixed(seed, number))
    chances = torch.tensor(list(weights) or [1.0] * layers, dtype=torch.float64)
    return tuple(sorted(torch.multinomial(chances, count, generator=generator).tolist()))


def _mixed(seed: int, number: int) -> int:
    """Return a seed that has nothing to do with that of a neighbouring sample."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**63


def check_counts(layers: int, activated: int, weights: Sequence[float]) -> None:
    """Check that a sample is possible.

    Raises:
        RequestError: more layers are to be sampled than there are, or the weights do not fit them.
    """
    if activated > layers:
        raise RequestError(f"--lisa-activated-layers {activated}: the model has {layers} layers")
    if weights and len(weights) != layers:
        raise RequestError(f"--lisa-layer-weights: {len(weights)} weights for {layers} layers")
    if weights and sum(weight > 0 for weight in weights) < activated:
        raise RequestError(f"--lisa-layer-weights: fewer than {activated} layers have a weight above 0")


def always_on(network: Any, layers: nn.ModuleList) -> dict[str, list[nn.Parameter]]:
    """Return the parameters outside the layers, as ``embeddings``, ``head`` and ``norm`` (all that is left)."""
    inside = {id(parameter) for parameter in layers.parameters()}
    embeddings = _parameters(network.get_input_embeddings())
    # Of a network that gives a number, the head is what is behind the trunk.
    trunk = {id(parameter) for parameter in network.base_model.parameters()}
    behind = [parameter for parameter in network.parameters() if id(parameter) not in trunk]
    head = _parameters(network.get_output_embeddings()) or behind
    known = inside | {id(parameter) for parameter in (*embeddings, *head)}
    tied = {id(parameter) for parameter in embeddings}
    return {
        "embeddings": embeddings,
        "head": [parameter for parameter in head if id(parameter) not in tied],
        "norm": [parameter for parameter in network.parameters() if id(parameter) not in known],
    }


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else list(module.parameters())
