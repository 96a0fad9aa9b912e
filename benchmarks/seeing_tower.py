"""A DINOv2 vision tower of transformers, made of an ONNX file that holds its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from transformers import Dinov2Config, Dinov2Model

_PREFIX = "backbone."
_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def convert(file: Path, output: Path, layers: int, pixels: int) -> Any:
    """Write the first layers of the tower as a folder of transformers, and return the network.

    Args:
        file: ONNX, whose parameters have the names of ``Dinov2Model`` behind ``backbone.``; the matrices of its
            products have none, and are known by the bias that is added behind them.
        output: the folder.
        layers: how many, from below.
        pixels: height and width of the pictures it is to take; its positions are interpolated to them.
    """
    weights = _weights(onnx.load(str(file)).graph)
    width = weights["layernorm.weight"].shape[0]
    patches = weights["embeddings.position_embeddings"].shape[1] - 1
    patch = weights["embeddings.patch_embeddings.projection.weight"].shape[-1]
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, patch_size=patch,
        image_size=round(patches**0.5) * patch,
    )  # fmt: skip
    network: Any = Dinov2Model(config)
    own = network.state_dict().keys()
    network.load_state_dict({name: value for name, value in weights.items() if name in own})
    _fit(network.eval(), pixels)
    network.save_pretrained(output)
    return network


def _fit(network: Any, pixels: int) -> None:
    embeddings, patch = network.embeddings, network.config.patch_size
    places = torch.empty(1, 1 + (pixels // patch) ** 2, network.config.hidden_size)
    with torch.no_grad():
        positions = embeddings.interpolate_pos_encoding(places, pixels, pixels)
    embeddings.position_embeddings = torch.nn.Parameter(positions.contiguous())
    network.config.image_size = pixels


def _weights(graph: Any) -> dict[str, torch.Tensor]:
    arrays = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    found = {name: value for name, value in arrays.items() if name.startswith(_PREFIX)}
    for node in graph.node:
        biases = [name for name in node.input if name in found and name.endswith(".bias")]
        products = [made[name] for name in node.input if name in made and made[name].op_type == "MatMul"]
        if node.op_type == "Add" and biases and products:
            found[biases[0].removesuffix("bias") + "weight"] = arrays[products[0].input[1]].T.contiguous()
    named = {_renamed(name.removeprefix(_PREFIX)): value for name, value in found.items()}
    named["embeddings.position_embeddings"] = _positions(arrays)
    named["embeddings.mask_token"] = torch.zeros_like(named["embeddings.cls_token"][0])
    return named


def _renamed(name: str) -> str:
    for old, new in _NAMES.items():
        name = name.replace(old, new)
    return name


def _positions(arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the positions of the class token and of the patches, (1, 1 + patches, width), cut in two in the file."""
    parts = [value for name, value in arrays.items() if value.dim() == 3 and not name.startswith(_PREFIX)]
    return torch.cat(sorted(parts, key=lambda part: part.shape[1]), dim=1)
