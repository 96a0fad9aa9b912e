"""The networks that draft: a second model, or the first layers of the model itself."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lmflow_core.api import ModelError, RequestError
from lmflow_speculative.frequent import keep_rows, read_vocabulary
from lmflow_transformers.api import CausalModel

_BY_POSITION = frozenset(("full_attention", "sliding_attention", "chunked_attention"))


@dataclass(frozen=True)
class DraftNetwork:
    """What drafts; ``tokens`` are those its head has rows for, None when all."""

    network: Any
    tokens: list[int] | None


# A server makes a decoder for each request, so what was made of a draft model stays for as long as that does.
_made: WeakKeyDictionary[CausalModel, DraftNetwork] = WeakKeyDictionary()


def draft_network(model: CausalModel) -> DraftNetwork:
    """Return the network of a loaded draft model, with a head for those tokens only that its folder names.

    The model itself keeps its whole head.

    Raises:
        ModelError: the folder's list of tokens is damaged.
    """
    if model not in _made:
        _made[model] = _make(model)
    return _made[model]


def _make(model: CausalModel) -> DraftNetwork:
    folder = model.folder
    tokens = None if folder is None else read_vocabulary(folder, len(model.base.get_output_embeddings().weight))
    if tokens is None:
        return DraftNetwork(model.network, None)
    network = _shallow_copy(model.base)
    keep_rows(network, tokens)
    return DraftNetwork(network, tokens)


def check_attention(base: Any, reference: str) -> None:
    """Check that a model can forget the end of a text: that all it knows of one is keys and values by position.

    Raises:
        ModelError: some of its layers keep a running state.
    """
    kinds = getattr(base.config.get_text_config(), "layer_types", None) or ()
    if getattr(base, "_is_stateful", False) or not _BY_POSITION.issuperset(kinds):
        raise ModelError(
            f"{reference} keeps a running state, from which a refused draft cannot be taken back: "
            "use --decoder sampling"
        )


def first_layers(base: Any, count: int | None) -> Any:
    """Return a view of a model that ends behind its first layers: final norm and head follow at once.

    No weight is copied. Early exit without training, after Zhang et al., "Draft & Verify" (2023), and Elhoushi et al.,
    "LayerSkip" (2024).

    Args:
        base: a transformers model.
        count: how many layers; a third of them when None.

    Raises:
        ModelError: the model keeps no list of layers.
        RequestError: the model has not more layers than that.
    """
    found = trunk(base)
    count = max(len(found.layers) // 3, 1) if count is None else count
    if count >= len(found.layers):
        raise RequestError(f"--draft-layers {count}: the model has {len(found.layers)} layers; draft with fewer")
    return with_child(base, found.name, with_child(found.decoder, "layers", found.layers[:count]))


@dataclass(frozen=True)
class Trunk:
    """What of a model stands between its embeddings and its head: ``name`` is that of ``decoder`` in the model."""

    name: str
    decoder: Any
    layers: torch.nn.ModuleList


def trunk(base: Any) -> Trunk:
    """Find the layers of a transformers model.

    Raises:
        ModelError: the model keeps no list of layers.
    """
    decoder = base.get_decoder()
    layers = getattr(decoder, "layers", None)
    name = next((name for name, child in base.named_children() if child is decoder), None)
    if not isinstance(layers, torch.nn.ModuleList) or name is None:
        raise ModelError(f"a {base.config.model_type} model has no list of layers to cut short")
    return Trunk(name, decoder, layers)


def with_child(module: Any, name: str, child: Any) -> Any:
    """Return a shallow copy of a module with another child."""
    changed = _shallow_copy(module)
    changed._modules[name] = child
    return changed


def _shallow_copy(module: Any) -> Any:
    """Return a copy whose children can be replaced; they are those of the module until then."""
    copied = copy.copy(module)
    copied._modules = {**module._modules}
    return copied


def parameters(network: Any) -> int:
    """Return how many parameters take part in a pass: of embeddings that are no head a few rows only."""
    embeddings, head = network.get_input_embeddings().weight, network.get_output_embeddings().weight
    looked_up = embeddings.numel() if embeddings is not head else 0
    return sum(parameter.numel() for parameter in network.parameters()) - looked_up
