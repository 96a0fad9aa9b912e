"""Rows of new tokens in embeddings and head: made of the rows that were there, file by file."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lmflow_core.api import ModelError
from lmflow_transformers.api import read_object, refusals_as_os_errors, tensor_entries, weight_files

INDEX = "model.safetensors.index.json"
INITS = ("mean", "global-mean")


@dataclass(frozen=True)
class NewRows:
    """What becomes of a tensor that has a row for each token.

    Attributes:
        pieces: of each new token by id, the old tokens whose rows it begins as the mean of; of none, the mean of all.
        old: tokens that there were: rows behind them were padding, and are used up first.
        rows: how many the tensor has in the end; those of no token are the mean of all old ones.
    """

    pieces: Mapping[int, Sequence[int]]
    old: int
    rows: int

    def extended(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return embeddings (rows, width), or a bias (rows,), with the new rows; old tokens keep their bits."""
        old = tensor[: self.old]
        average = old.float().mean(0)
        result = torch.empty((self.rows, *tensor.shape[1:]), dtype=tensor.dtype)
        result[: len(tensor)] = tensor
        result[len(tensor) :] = average.to(tensor.dtype)
        for number, pieces in self.pieces.items():
            row = old[list(pieces)].float().mean(0) if pieces else average
            result[number] = row.to(tensor.dtype)
        return result


def padded_rows(rows_before: int, tokens: int, multiple: int) -> int:
    """Return how many rows are needed: what there are where they suffice, else a multiple that does."""
    return rows_before if tokens <= rows_before else math.ceil(tokens / multiple) * multiple


@dataclass(frozen=True)
class TokenTensors:
    """The tensors of a model folder that have a row for each token, by name, and how many rows."""

    names: frozenset[str]
    rows: int


def token_tensors(folder: Path, config: Any) -> TokenTensors:
    """Find embeddings and head of a model in its files.

    Raises:
        ModelError: they are not there, or the model has something else with a row for each token.
    """
    kind: Any = AutoModelForCausalLM
    with torch.device("meta"):
        network = kind.from_config(config)
    parts = [network.get_input_embeddings(), network.get_output_embeddings()]
    parameters = [p for part in parts if part is not None for p in part.parameters()]
    rows = len(parameters[0])
    ours = {id(parameter) for parameter in parameters}
    named = dict(network.named_parameters(remove_duplicate=False))
    if others := [name for name, p in named.items() if p.shape[:1] == (rows,) and id(p) not in ours and p.dim() > 1]:
        raise ModelError(f"{folder}: {others[0]} has a row for each token as well, and how it grows is not known")
    stored = [entry.name for file in weight_files(folder) for entry in tensor_entries(file)]
    names = {name: _stored_name(name, stored) for name, p in named.items() if id(p) in ours}
    for parameter in parameters:
        if not any(names[name] for name, p in named.items() if p is parameter):
            missing = next(name for name, p in named.items() if p is parameter)
            raise ModelError(f"{folder}: its files hold no {missing}")
    return TokenTensors(frozenset(name for name in names.values() if name), rows)


def _stored_name(name: str, stored: Sequence[str]) -> str | None:
    """Return the name of a parameter in the files, which may have more or fewer words in front."""
    if name in stored:
        return name
    return next((s for s in stored if name.endswith(f".{s}") or s.endswith(f".{name}")), None)


def write_weights(source: Path, output: Path, tensors: TokenTensors, new: NewRows) -> None:
    """Copy the weights of a folder, with new rows; no more than one file is in memory at a time.

    Raises:
        OSError: a write is refused.
    """
    files, grown = weight_files(source), 0
    for file in files:
        if not any(entry.name in tensors.names for entry in tensor_entries(file)):
            shutil.copyfile(file, output / file.name)
            continue
        weights = load_file(file)
        for name in tensors.names & weights.keys():
            before = weights[name]
            weights[name] = new.extended(before)
            grown += weights[name].nbytes - before.nbytes
        with refusals_as_os_errors():
            save_file(weights, output / file.name, {"format": "pt"})
    index = source / INDEX
    if index.is_file() and (source / "model.safetensors") not in files:
        _write_index(index, output / INDEX, grown)


def _write_index(source: Path, target: Path, grown: int) -> None:
    index = read_object(source)
    if isinstance(size := index.get("metadata", {}).get("total_size"), int):
        index["metadata"]["total_size"] = size + grown
    target.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
