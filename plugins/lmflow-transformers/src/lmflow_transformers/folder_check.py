"""What a model folder must be before a library opens it: whole, made of files, and of the size that it says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelError, printable
from lmflow_transformers.safetensors_head import TensorEntry, tensor_entries

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_READ = (*_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model", "*.py", "README.md")
_LARGEST_TEXT = 1 << 28
_LAYERS = {"num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"}
_WIDTHS = {
    *("hidden_size", "n_embd", "d_model", "vocab_size", "intermediate_size", "ffn_dim", "d_ff", "head_dim"),
    *("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "n_positions"),
}
_POSITIONS = {"max_position_embeddings"}
_EXPERTS = {"num_experts", "num_local_experts", "n_routed_experts"}
_PRODUCTS = (
    ("vocab_size", "hidden_size"),
    ("intermediate_size", "hidden_size"),
    ("num_attention_heads", "head_dim", "hidden_size"),
)
_CODE = ("attn_implementation", "experts_implementation")
# Quantised weights hold up to eight numbers in one that is stored.
_PACKED = 8
_LARGEST_NUMBER = 1 << 40
_MOST_EXPERTS = 1 << 16
_TOO_LARGE = "more than the weights beside it can hold"


def check_folder(folder: Path) -> None:
    """Check that a folder holds a configuration and safetensors weights, all of it whole, and nothing absurd.

    Raises:
        ModelError: something is missing or damaged, leads out of the folder, or does not fit the rest.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model folder: it has no config.json")
    if not any(match for pattern in _WEIGHTS for match in folder.glob(pattern)):
        unsafe = sorted(file.name for file in folder.glob("*.bin"))
        hint = f" ({', '.join(unsafe)} is pickled, which LMFlow does not read: convert it)" if unsafe else ""
        raise ModelError(f"{folder} holds no weights: no *.safetensors file{hint}")
    check_files(folder)
    entries = [entry for file in weight_files(folder) for entry in tensor_entries(file)]
    _check_config(folder / "config.json", entries)


def check_files(folder: Path) -> None:
    """Check that what is read of a folder are files in it, or in the hub's cache that it is a part of.

    Weights may be links to elsewhere: they are large, and only numbers are taken from them.

    Raises:
        ModelError: one leads out of the folder, is no file, or is far larger than any such file.
    """
    for file in sorted({match for pattern in _READ for match in folder.glob(pattern)}):
        _check_file(file, folder)


def _check_file(file: Path, folder: Path) -> None:
    is_weights = file.suffix == ".safetensors"
    target = _resolved(file)
    if not target.is_file():
        raise ModelError(f"{file} is no file" + (" but a link to nothing that is one" if file.is_symlink() else ""))
    if is_weights:
        return
    if not any(target.is_relative_to(root) for root in _roots(folder)):
        raise ModelError(f"{file} is a link out of the folder, to {target}: put the file itself there if you trust it")
    if (size := target.stat().st_size) > _LARGEST_TEXT:
        raise ModelError(f"{file} has {size:,} bytes, which is no such file of a model: the most is {_LARGEST_TEXT:,}")


def _resolved(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ModelError(f"{file} is a link that leads nowhere") from error


def _roots(folder: Path) -> Iterator[Path]:
    real = folder.resolve()
    yield real
    if real.parent.name == "snapshots":
        yield real.parent.parent / "blobs"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model: those that its index names, or all.

    Raises:
        ModelError: the index is damaged, or names a file that is not in the folder.
    """
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    if whole.exists() or not index.is_file():
        return [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))
    placed = read_object(index).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ModelError(f"{index} has no 'weight_map' of tensors to files")
    names = sorted(set(placed.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ModelError(f"{index} names {outside[0]!r}, which is no file of its folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}, which {index.name} names")
    return [folder / name for name in names]


def read_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise ModelError(f"{file} is nested too deeply") from error
    except ValueError as error:
        raise ModelError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no JSON object")
    return content


def _check_config(file: Path, entries: Sequence[TensorEntry]) -> None:
    """Compare the sizes in a configuration with the weights: a network of those sizes is built before they are read."""
    stored = _PACKED * sum(math.prod(entry.shape) for entry in entries)
    config = read_object(file)
    wrong = [name for name, value in config.items() if name.endswith("_config") and not isinstance(value, dict | None)]
    if wrong:
        raise ModelError(f"{file}: {printable(wrong[0], 80)} must be an object")
    for part in _parts(config):
        for name, value in part.items():
            if name.endswith(_CODE) and not (value is None or str(value).isidentifier()):
                raise ModelError(f"{file}: {name} is {printable(repr(value), 80)}, which is no name of an attention")
            if isinstance(value, int) and not isinstance(value, bool):
                _check_size(file, name, value, len(entries) if name in _LAYERS else stored)
        for names in _PRODUCTS:
            sizes = [size for name in names if isinstance(size := part.get(name), int)]
            if len(sizes) == len(names) and math.prod(sizes) > stored:
                raise ModelError(f"{file}: {' times '.join(names)} is {math.prod(sizes):,}, {_TOO_LARGE}")


def _check_size(file: Path, name: str, value: int, most: int) -> None:
    if name in _LAYERS | _WIDTHS | _POSITIONS and value < 1:
        raise ModelError(f"{file}: {name} is {value:,}, where at least 1 is needed")
    if name in _EXPERTS:
        most = _MOST_EXPERTS
    elif name not in _LAYERS | _WIDTHS:
        most = _LARGEST_NUMBER
    if value > most:
        raise ModelError(f"{file}: {name} is {printable(str(value), 40)}, {_TOO_LARGE}")


def _parts(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a configuration and those within it."""
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)
