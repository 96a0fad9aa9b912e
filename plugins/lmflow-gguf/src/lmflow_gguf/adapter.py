"""Export of a LoRA adapter alone, as a GGUF file that llama.cpp puts on a model when it loads it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lmflow_core.api import ExportReport, ModelError
from lmflow_gguf.architectures import Config, Tensor, architecture_of, flat_config, layers_of, rotated, rotated_heads
from lmflow_gguf.checkpoint import StoredTensor, read_json, stored_tensors
from lmflow_gguf.convert import PLAIN_TYPES, Planned, add_plan, gguf_file, type_of, write_planned
from lmflow_gguf.metadata import write_metadata
from lmflow_gguf.options import AdapterOptions
from lmflow_transformers.api import CausalModel

_PREFIX = "base_model.model."
_HALVES = (".lora_A.weight", ".lora_B.weight")


class AdapterExporter:
    """Writes a LoRA adapter."""

    def __init__(self, options: AdapterOptions | None = None) -> None:
        self._options = options or AdapterOptions()

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write the adapter in ``model.adapter``.

        Raises:
            ModelError: the adapter is of a kind that llama.cpp cannot put on.
        """
        assert model.adapter is not None
        if model.media is not None:
            raise ModelError(f"{model.reference} sees, and llama.cpp puts adapters on texts: export it merged, as gguf")
        config = flat_config(model.config.to_dict())
        architecture = architecture_of(config)
        qtype, _ = PLAIN_TYPES[self._options.type]
        settings = _checked_settings(model.adapter)
        plan = [
            Planned(tensor, type_of(tensor.name, tensor.shape, qtype))
            for tensor in _adapter_tensors(model.adapter, config, settings)
        ]
        file = folder / f"{model.adapter.resolve().name}-adapter-{self._options.type}.gguf"
        with gguf_file(file, architecture.name) as writer:
            add_plan(writer, plan)
            writer.add_type(gguf.GGUFType.ADAPTER)
            write_metadata(writer, model.adapter, model.adapter.resolve().name)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            write_planned(writer, plan, "Writing the adapter")
        return ExportReport({file.name: file.stat().st_size})


def _checked_settings(folder: Path) -> Mapping[str, Any]:
    settings = read_json(folder / "adapter_config.json")
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{folder} holds a {settings.get('peft_type', 'nameless')} adapter; GGUF has LoRA alone")
    if settings.get("use_dora"):
        raise ModelError(f"{folder} holds a DoRA adapter, which llama.cpp cannot put on: export it merged, as gguf")
    if settings.get("modules_to_save"):
        names = ", ".join(settings["modules_to_save"])
        raise ModelError(f"the adapter in {folder} holds whole layers ({names}): export it merged, as gguf")
    return settings


def _adapter_tensors(folder: Path, config: Config, settings: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield both halves of every pair, named as llama.cpp looks for them."""
    architecture = architecture_of(config)
    names = gguf.get_tensor_name_map(architecture.arch, layers_of(config))
    pairs = _pairs(stored_tensors(folder, "adapter_model"))
    for module, (first, second) in pairs.items():
        name = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
        if name is None:
            raise ModelError(f"{module} of the adapter has no place in the architecture {architecture.name}")
        heads = rotated_heads(f"{module}.weight", config) if architecture.arch == gguf.MODEL_ARCH.LLAMA else None
        scale = _scale(module, first.shape[0], settings)
        yield Tensor(f"{name}.lora_a", first.shape, first.read)
        yield Tensor(f"{name}.lora_b", second.shape, _second_half(second, heads, scale))


def _pairs(stored: list[StoredTensor]) -> dict[str, tuple[StoredTensor, StoredTensor]]:
    halves: dict[str, dict[str, StoredTensor]] = {}
    for tensor in stored:
        ending = next((ending for ending in _HALVES if tensor.name.endswith(ending)), None)
        if ending is None:
            raise ModelError(f"{tensor.name} of the adapter is no half of a LoRA pair: export it merged, as gguf")
        halves.setdefault(tensor.name.removeprefix(_PREFIX).removesuffix(ending), {})[ending] = tensor
    return {module: (found[_HALVES[0]], found[_HALVES[1]]) for module, found in halves.items()}


def _second_half(second: StoredTensor, heads: int | None, scale: float) -> Any:
    def read() -> np.ndarray:
        values = second.read()
        values = values if scale == 1.0 else values * values.dtype.type(scale)
        return rotated(values, heads) if heads else values

    return read


def _scale(module: str, rank: int, settings: Mapping[str, Any]) -> float:
    """Return what the pair must be multiplied with, as llama.cpp itself multiplies with ``lora_alpha / rank`` only."""
    alpha = _of_pattern(settings.get("alpha_pattern"), module, settings["lora_alpha"])
    scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return float(scaling / (settings["lora_alpha"] / rank))


def _of_pattern(pattern: Mapping[str, Any] | None, module: str, default: float) -> float:
    return next((value for key, value in (pattern or {}).items() if module.endswith(key)), default)
