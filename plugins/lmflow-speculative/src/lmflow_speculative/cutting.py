"""Cutting a model down to some of its layers: what is left is an ordinary, smaller model of the same kind."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import ModelError, RequestError
from lmflow_speculative.networks import check_attention, trunk, with_child
from lmflow_speculative.options import DraftOptions
from lmflow_transformers.api import CausalModel, follows_length


def chosen_layers(total: int, options: DraftOptions) -> list[int]:
    """Return the places of the layers that are kept.

    Raises:
        RequestError: there are not more layers than are to be kept.
    """
    count = max(total // 10, 1) if options.draft_layers is None else options.draft_layers
    if count >= total:
        raise RequestError(f"--draft-layers {count}: the model has {total} layers; keep fewer")
    if options.draft_layers_from == "first" or count == 1:
        return list(range(count))
    return [round(number * (total - 1) / (count - 1)) for number in range(count)]


def check_cut(model: CausalModel, options: DraftOptions) -> None:
    """Check on a model without weights that it can be cut, and that transformers would load what is left.

    Raises:
        ModelError: the model has no list of layers, layers that depend on their place, or a state drafts cannot have.
        RequestError: there are not more layers than are to be kept.
    """
    whole = _skeleton(model, model.config)
    check_attention(whole, model.reference)
    if follows_length(model.config):
        raise ModelError(
            f"the rotary positions of {model.reference} depend on the length of the text: no drafts for it"
        )
    places = chosen_layers(len(trunk(whole).layers), options)
    left, _ = cut(whole, places)
    if _shapes(left) != _shapes(_skeleton(model, left.config)):
        raise ModelError(
            f"{model.reference}: the layers of a {model.config.model_type} model depend on their place, so layers "
            f"{', '.join(map(str, places))} alone are no such model"
        )


def _skeleton(model: CausalModel, config: Any) -> Any:
    """Return a network without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=model.arguments["trust_remote_code"])


def _shapes(network: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def cut(base: Any, places: Sequence[int]) -> tuple[Any, list[torch.nn.Parameter]]:
    """Return a model of some of the layers of another, and the parameters that it does not share with it.

    Layers and norms are copied; embeddings and head are the same tensors as the model's.

    Raises:
        ModelError: the model has no list of layers.
    """
    found = trunk(base)
    config = _cut_config(base.config, places)
    # Whatever refers to the model's configuration refers to the new one in the copy.
    memo = {id(base.config): config, id(found.decoder.config): config.get_text_config()}
    embeddings = base.get_input_embeddings()
    layers = torch.nn.ModuleList(copy.deepcopy(found.layers[place], memo) for place in places)
    for number, layer in enumerate(layers):
        _renumber(layer, number)
    decoder, owned = found.decoder, list(layers.parameters())
    for name, child in found.decoder.named_children():
        if child is not embeddings:
            copied = layers if child is found.layers else copy.deepcopy(child, memo)
            decoder = with_child(decoder, name, copied)
            owned += [] if copied is layers else copied.parameters()
    decoder.config = config.get_text_config()
    shorter = with_child(base, found.name, decoder)
    shorter.config = config
    return shorter, owned


def _renumber(layer: torch.nn.Module, number: int) -> None:
    """Tell a layer its place: its keys and values are kept by it."""
    for module in layer.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = number  # type: ignore[assignment]


def _cut_config(config: Any, places: Sequence[int]) -> Any:
    """Return a configuration for some of the layers; lists with an entry for each layer are cut alike."""
    shorter = copy.deepcopy(config)
    text = shorter.get_text_config()
    total = text.num_hidden_layers
    for name, value in _lists(text):
        if len(value) == total:
            setattr(text, name, [value[place] for place in places])
    text.num_hidden_layers = len(places)
    return shorter


def _lists(config: Any) -> Iterable[tuple[str, list[Any]]]:
    return [(name, value) for name, value in vars(config).items() if isinstance(value, list)]
