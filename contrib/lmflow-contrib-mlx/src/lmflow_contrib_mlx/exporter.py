"""Export to the folder that mlx-lm loads: transformers' layout, with what MLX has otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lmflow_contrib_mlx.affine import quantised
from lmflow_contrib_mlx.options import MlxOptions
from lmflow_core.api import ExportReport, RequestError
from lmflow_transformers.api import (
    CausalModel,
    HuggingFaceExporter,
    read_object,
    refusals_as_os_errors,
    tensor_entries,
    weight_files,
)

_INDEX = "model.safetensors.index.json"


class MlxExporter(HuggingFaceExporter):
    """Writes a model as transformers does, with any adapter merged, and turns that into MLX's form.

    mlx-lm turns transformers' names into its own when it loads a model. A layer is quantised where ``.scales`` and
    ``.biases`` stand beside its weight.
    """

    def __init__(self, options: MlxOptions | None = None) -> None:
        super().__init__()
        self._options = options or MlxOptions()

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write the model.

        Raises:
            ModelError: an adapter makes weights that are no numbers.
            RequestError: weights are to be quantised, and none has whole groups.
        """
        super().export(model, folder, chat_template)
        form = self._options
        layers = _layers(model.base) if form.mlx_bits else frozenset()
        held = {file: _counted(file) for file in weight_files(folder)}
        shapes = {name: shape for names in held.values() for name, shape in names.items()}
        chosen = {name for name, shape in shapes.items() if name in layers and self._fits(shape)}
        if form.mlx_bits and not chosen:
            raise RequestError(f"--mlx-group-size {form.mlx_group_size}: no layer of {model.reference} has such groups")
        for file, names in held.items():
            self._rewrite(file, names, chosen)
        _write_index(folder, parameters=sum(map(math.prod, shapes.values())))
        _write(folder / "config.json", {**read_object(folder / "config.json"), **self._added(folder)})
        return ExportReport({file.name: file.stat().st_size for file in sorted(folder.iterdir())})

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 and shape[1] % self._options.mlx_group_size == 0

    def _rewrite(self, file: Path, names: Iterable[str], chosen: Set[str]) -> None:
        """Write a file of weights anew, those that are chosen quantised."""
        aside = file.with_suffix(".part")
        with safe_open(file, framework="pt") as tensors, refusals_as_os_errors():
            stored = (self._stored(name, tensors.get_tensor(name), chosen) for name in names)
            held = dict(pair for pairs in stored for pair in pairs)
            save_file(held, aside, metadata={"format": "mlx"})
        aside.replace(file)

    def _stored(self, name: str, tensor: torch.Tensor, chosen: Set[str]) -> Iterator[tuple[str, torch.Tensor]]:
        bits = self._options.mlx_bits
        if bits is None or name not in chosen:
            yield name, tensor
            return
        matrix = quantised(tensor, bits, self._options.mlx_group_size)
        layer = name.removesuffix(".weight")
        yield from ((name, matrix.weight), (f"{layer}.scales", matrix.scales), (f"{layer}.biases", matrix.biases))

    def _added(self, folder: Path) -> Mapping[str, Any]:
        """Return what mlx-lm needs in a configuration besides what transformers wrote."""
        added = _rotary(read_object(folder / "config.json"))
        if self._options.mlx_bits:
            form = {"group_size": self._options.mlx_group_size, "bits": self._options.mlx_bits, "mode": "affine"}
            added |= {"quantization": form, "quantization_config": form}
        return added


def _layers(network: torch.nn.Module) -> frozenset[str]:
    """Return the names of the weights that MLX can have quantised: of linear layers and of embeddings."""
    kinds = (torch.nn.Linear, torch.nn.Embedding)
    return frozenset(f"{place}.weight" for place, module in network.named_modules() if isinstance(module, kinds))


def _counted(file: Path) -> dict[str, tuple[int, ...]]:
    return {entry.name: entry.shape for entry in tensor_entries(file)}


def _write_index(folder: Path, parameters: int) -> None:
    """Write which file holds which tensor; mlx-lm has such an index beside a single file too."""
    placed = {entry.name: file for file in weight_files(folder) for entry in tensor_entries(file)}
    sizes = (file.stat().st_size - tensor_entries(file)[0].offset for file in {*placed.values()})
    metadata = {"total_size": sum(sizes), "total_parameters": parameters}
    _write(folder / _INDEX, {"metadata": metadata, "weight_map": {name: placed[name].name for name in sorted(placed)}})


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary parameters of a configuration under the names they had before transformers 5.

    Most models of mlx-lm know no others, and would take the base that is theirs by default.
    """
    parameters = config.get("rope_parameters") or {}
    local = parameters.get("sliding_attention") or {}
    main = parameters.get("full_attention") or parameters
    old = {name: main[name] for name in ("rope_theta", "partial_rotary_factor") if name in main}
    if main.get("rope_type", "default") != "default":
        old["rope_scaling"] = main
    if "rope_theta" in local:
        old["rope_local_base_freq"] = local["rope_theta"]
    return {name: value for name, value in old.items() if name not in config}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
