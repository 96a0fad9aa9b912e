"""Rotary embeddings of a transformers model: read from its configuration, scaled there, and checked in the network.

Everything is in ``config.rope_parameters``, which transformers reads when it builds the network and writes with it.
Nothing is patched, so two models with different scalings in one process know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lmflow_core.api import ModelError, RequestError, Rope, ScaledPositions

# Transformers keeps keys it does not know, so the saved configuration tells what was done, even where the scheme has
# no type of its own (fixed NTK is a larger base and nothing else).
RECORD = "lmflow_position_scaling"
_UNSCALED = "default"
_TOLERANCE = 1e-6


def reach(config: Any) -> int | None:
    """Return how many positions a model was made for, or scaled to; None when its configuration does not tell."""
    text = config.get_text_config()
    length: int | None = getattr(text, "max_position_embeddings", None)
    parameters = getattr(text, "rope_parameters", None) or {}
    if length is not None and parameters.get("rope_type") == "dynamic":
        return round(length * parameters["factor"])
    return length


def follows_length(config: Any) -> bool:
    """Whether the frequencies of a pass depend on the longest text in it."""
    return any(map(_follows_length, _parameter_sets(config.get_text_config()).values()))


def _follows_length(parameters: Mapping[str, Any]) -> bool:
    """Whether a set does; ``longrope`` has divisors for short texts and for long ones, which may be the same."""
    kind = parameters.get("rope_type")
    return kind == "dynamic" or (kind == "longrope" and parameters["short_factor"] != parameters["long_factor"])


def scale(config: Any, positions: ScaledPositions) -> None:
    """Scale a configuration's rotary embeddings in place; factor 1 changes nothing.

    Where layers of several types have parameters of their own, those with a sliding window stay as they are: they never
    see further than it.

    Args:
        config: a transformers configuration.
        positions: the scheme, and how far it is to reach.

    Raises:
        RequestError: the model has no rotary embeddings, or is scaled already.
    """
    name, factor = positions.name, positions.factor
    text = config.get_text_config()
    sets = _parameter_sets(text)
    if not sets or not getattr(text, "max_position_embeddings", None):
        raise RequestError(f"--position-scaling {name}: a {config.model_type} model has no rotary embeddings to scale")
    _refuse_scaled(text, name, sets)
    if factor == 1:
        return
    length = text.max_position_embeddings
    for key, parameters in sets.items():
        if key is not None and ("sliding" in key or "local" in key):
            continue
        unscaled = Rope(dict(parameters), _dimension(text, parameters), length)
        rope = positions.scheme(unscaled, factor, positions.options)
        if key is None:
            text.rope_parameters = dict(rope.parameters)
        else:
            text.rope_parameters = {**text.rope_parameters, key: dict(rope.parameters)}
        text.max_position_embeddings = rope.length
    setattr(text, RECORD, {"scheme": name, "factor": factor, "trained_length": length})


def _parameter_sets(text: Any) -> dict[str | None, dict[str, Any]]:
    """Return the rotary parameters by type of layer; the key is None where all layers share them."""
    parameters = getattr(text, "rope_parameters", None)
    if not parameters:
        return {}
    nested = text.nested_rope_parameter_keys(parameters)
    if nested:
        return {key: parameters[key] for key in nested if parameters[key]}
    return {None: parameters}


def _refuse_scaled(text: Any, name: str, sets: dict[str | None, dict[str, Any]]) -> None:
    record = getattr(text, RECORD, None)
    types = {parameters.get("rope_type", _UNSCALED) for parameters in sets.values()} - {_UNSCALED}
    if record or types:
        scheme = f"{record['scheme']}, factor {record['factor']:g}" if record else ", ".join(sorted(types))
        raise RequestError(
            f"--position-scaling {name}: the model is scaled already ({scheme}). Leave the option out to use it as it "
            "is, or start from the unscaled model"
        )


def _dimension(text: Any, parameters: dict[str, Any]) -> int:
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(head * parameters.get("partial_rotary_factor", 1.0))


def check(network: Any) -> None:
    """Check that the frequencies in a network are those its scaled configuration asks for.

    Raises:
        ModelError: the network computes its positions in another way, so the scaling would have no effect.
    """
    text = network.config.get_text_config()
    expected = {key: _expected(text, key) for key in _parameter_sets(text)}
    agreements = [
        _agrees(module, "" if key is None else f"{key}_", *wanted)
        for module in _rotary_modules(network)
        for key, wanted in expected.items()
    ]
    if not all(agreements):
        raise ModelError("the network's rotary frequencies are not those its configuration asks for")
    if not agreements:
        raise ModelError(f"no rotary frequencies are found in {type(network).__name__}, so they cannot be scaled")


def _agrees(module: Any, prefix: str, frequencies: torch.Tensor, attention: float) -> bool:
    """Whether a rotary module has these frequencies and this factor of cosines and sines, both under a prefix."""
    inside = getattr(module, f"{prefix}inv_freq", torch.empty(0)).float().cpu()
    same = inside.shape == frequencies.shape and torch.allclose(inside, frequencies, rtol=_TOLERANCE, atol=0)
    return same and abs(getattr(module, f"{prefix}attention_scaling", 1.0) - attention) <= _TOLERANCE


def _rotary_modules(network: Any) -> Iterator[Any]:
    """Yield the modules that rotate text by its configuration; those of images have axes, or know no ``rope_type``."""
    return (module for module in network.modules() if getattr(module, "rope_type", "axial") != "axial")


def _expected(text: Any, key: str | None) -> tuple[torch.Tensor, float]:
    """Return the frequencies (dimension / 2,), float32, and the factor of cosines and sines, that a set asks for."""
    parameters = _parameter_sets(text)[key]
    kind = parameters.get("rope_type", _UNSCALED)
    if kind != _UNSCALED:
        frequencies, attention = ROPE_INIT_FUNCTIONS[kind](text, torch.device("cpu"), layer_type=key)
        return frequencies.float(), float(attention)
    dimension = _dimension(text, parameters)
    powers = torch.arange(0, dimension, 2, dtype=torch.int64).float() / dimension
    return 1.0 / parameters["rope_theta"] ** powers, 1.0


def judge_each_pass_alone(network: Any) -> None:
    """Let dynamic scaling follow the length of each pass only.

    Transformers keeps the base of the longest pass so far until a short one comes, so that a text's likelihood would
    depend on what was read before it.
    """
    for module in _rotary_modules(network):
        if getattr(module, "rope_type", None) == "dynamic":
            module.register_forward_pre_hook(_forget_longest)


def _forget_longest(module: Any, _: Any) -> None:
    module.inv_freq = module.original_inv_freq.to(module.inv_freq.device)
    module.max_seq_len_cached = module.original_max_seq_len
