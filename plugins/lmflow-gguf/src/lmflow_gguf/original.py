"""Export in LLaMA's original layout: one consolidated ``.pth`` with its names, ``params.json`` and the vocabulary."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import ExportReport, ModelError
from lmflow_gguf.architectures import Config, rotated, rotated_heads
from lmflow_gguf.checkpoint import StoredTensor, stored_tensors
from lmflow_gguf.convert import Source
from lmflow_gguf.export import model_source
from lmflow_transformers.api import CausalModel

_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
_NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


class OriginalExporter:
    """Writes ``consolidated.00.pth``."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write the state dict, the parameters and the tokenizer's files.

        Raises:
            ModelError: the model is not of LLaMA's family, or has tensors that its layout has no place for.
        """
        named = model.config.architectures or ["(none)"]
        if named[0] not in _ARCHITECTURES:
            raise ModelError(f"{named[0]} has no form in LLaMA's layout; {' and '.join(_ARCHITECTURES)} have")
        with model_source(model, folder, chat_template) as source:
            torch.save(state_dict(source), folder / "consolidated.00.pth")
            parameters = json.dumps(original_parameters(source.config), indent=2)
            (folder / "params.json").write_text(parameters + "\n", encoding="utf-8")
            for name in _TOKENIZER_FILES:
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, folder / name)
        return ExportReport({file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()})


def state_dict(source: Source) -> dict[str, torch.Tensor]:
    """Return a model's tensors by their original names, in the number format they are stored in."""
    tensors = {_original_name(stored.name): _tensor(stored, source.config) for stored in stored_tensors(source.folder)}
    # The original code has an output head of its own.
    tensors.setdefault("output.weight", tensors["tok_embeddings.weight"])
    return tensors


def _original_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
    part = layer.group(2) if layer else stem
    if part not in _NAMES or kind != "weight":
        raise ModelError(f"{name} has no place in LLaMA's layout")
    return f"layers.{layer.group(1)}.{_NAMES[part]}.{kind}" if layer else f"{_NAMES[part]}.{kind}"


def _tensor(stored: StoredTensor, config: Config) -> torch.Tensor:
    values = stored.read()
    if heads := rotated_heads(stored.name, config):
        values = rotated(values, heads)
    return torch.from_numpy(values.copy()).to(_DTYPES[stored.format])


def original_parameters(config: Config) -> Mapping[str, Any]:
    """Return what ``params.json`` tells of a model."""
    return {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "vocab_size": config["vocab_size"],
        "hidden_dim": config["intermediate_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": config["rope_parameters"].get("rope_theta", 10000.0),
        "max_seq_len": config["max_position_embeddings"],
    }
