"""The parameters of a network's normalisations, and the files that hold some of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lmflow_core.api import ModelError
from lmflow_transformers.api import check_files, read_object, refusals_as_os_errors, tensor_entries

CONFIG, WEIGHTS = "ln_adapter.json", "ln_adapter.safetensors"
_BASE = "base_model"


def norm_parameters(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the weights and biases of every normalisation by name.

    A normalisation is a module of PyTorch's for layers, groups or root mean squares, or one whose class says so: each
    architecture of transformers has an RMSNorm of its own.
    """
    return {
        f"{place}.{name}": parameter
        for place, module in network.named_modules()
        if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm) or "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False)
    }


def write_norms(folder: Path, base: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write normalisation weights and the reference of the model they were trained for.

    Raises:
        OSError: the disk refuses.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with refusals_as_os_errors():
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps({_BASE: base}, indent=2) + "\n", encoding="utf-8")


def read_base(folder: Path) -> str | None:
    """Return the reference of the model that weights were trained for, when the folder tells."""
    base = read_object(folder / CONFIG).get(_BASE)
    return base if isinstance(base, str) else None


def read_norms(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read normalisation weights of some names and shapes.

    Raises:
        ModelError: the file is missing or damaged, or holds others.
    """
    check_files(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelError(f"{folder} holds an adapter without weights: no {WEIGHTS}")
    held = {entry.name: entry.shape for entry in tensor_entries(file)}
    wrong = sorted(name for name in {*held, *shapes} if held.get(name) != shapes.get(name))
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"the adapter in {folder} does not fit: {name} is {_told(held.get(name))} in it and "
            f"{_told(shapes.get(name))} in the model"
        )
    tensors: dict[str, Any] = load_file(file)
    return tensors


def _told(shape: tuple[int, ...] | None) -> str:
    return "not" if shape is None else f"of shape {list(shape)}"
