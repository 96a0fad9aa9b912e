"""What the tests of this plugin share: small models, the same on every machine, and GGUF files in short."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

DATA = Path(__file__).parent / "data"
PRE_TOKENIZER = "gpt-2"
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + n / 8 for n in range(8)],
    "long_factor": [2.0 + n for n in range(8)],
    "original_max_position_embeddings": 64,
}
# By name: model type of transformers, tokenizer, and values of the configuration.
MODELS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "spm", {"tie_word_embeddings": False}),
    "llama-bias": ("llama", "bpe", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3": ("llama", "bpe", {"rope_parameters": _LLAMA3, "head_dim": 32}),
    "llama-linear": ("llama", "bpe", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "mistral": ("mistral", "spm", {"sliding_window": None}),
    "mixtral": ("mixtral", "spm", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", "bpe", {"tie_word_embeddings": True, "rope_parameters": _YARN}),
    "qwen2-moe": ("qwen2_moe", "bpe", {**_MOE, "num_experts": 4, "shared_expert_intermediate_size": 32}),
    "qwen3": ("qwen3", "bpe", {"head_dim": 32}),
    "qwen3-moe": ("qwen3_moe", "bpe", {**_MOE, "num_experts": 4, "head_dim": 32, "norm_topk_prob": True}),
    "gemma": ("gemma", "spm", {"head_dim": 32}),
    "gemma2": ("gemma2", "spm", {"head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32}),
    "gemma3": ("gemma3_text", "spm", {"head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32}),
    "phi3": ("phi3", "spm", {"original_max_position_embeddings": 64, "rope_parameters": _LONG}),
    "gemma3-deep": (
        "gemma3_text",
        "spm",
        {"head_dim": 32, "sliding_window": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 6},
    ),
    "phi3-short": ("phi3", "spm", {"original_max_position_embeddings": 256, "sliding_window": None}),
    "gpt2": ("gpt2", "bpe", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
}
# By name: the schemes by which a model's positions are scaled, by a factor of 2, while it is exported.
SCALED: Mapping[str, tuple[str, ...]] = {
    "llama": ("linear", "ntk", "yarn", "llama3"),
    "qwen3": ("linear", "ntk", "yarn"),
    "gemma3-deep": ("linear", "yarn"),
    "phi3-short": ("longrope",),
}
# Models whose vocabulary is extended by tokens of a text, SentencePiece and byte-level BPE.
EXTENDED = ("llama", "qwen3")
_CHINESE = ("语言", "模型", "把", "文字", "切成", "词元", "，", "中文", "的", "越", "少", "就", "快", "。")
# By name of a family that sees: values of the configuration of its eyes. Three layers, as llama.cpp's table of names
# ends where the layers do, and the last part of a projector is number two.
_SIGLIP = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_QWEN_EYES = {"depth": 3, "num_heads": 4, "patch_size": 14, "hidden_size": 64}
_WIDE_EYES = {**_QWEN_EYES, "intermediate_size": 96, "out_hidden_size": 64}
SEEING: Mapping[str, dict[str, Any]] = {
    "idefics3": _SIGLIP,
    "smolvlm": _SIGLIP,
    "qwen2_vl": {**_QWEN_EYES, "embed_dim": 32},
    "qwen2_5_vl": {**_WIDE_EYES, "window_size": 112, "fullatt_block_indexes": [1]},
}
_TILES = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
_ANY_SIZE = {"size": {"shortest_edge": 8 * 28 * 28, "longest_edge": 64 * 28 * 28}, "patch_size": 14}
# What their processors make of an image.
_PIXELS: Mapping[str, dict[str, Any]] = {
    "idefics3": _TILES,
    "smolvlm": _TILES,
    "qwen2_vl": _ANY_SIZE,
    "qwen2_5_vl": _ANY_SIZE,
}
_SEEING_TEXT: Mapping[str, dict[str, Any]] = {
    "idefics3": {"architectures": ["LlamaForCausalLM"]},
    "smolvlm": {"architectures": ["LlamaForCausalLM"]},
}
_SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
# llama.cpp takes the name phi3 for a promise of certain tokens, which the small vocabulary does not hold.
UNNAMED = "tiny"
SHARPNESS = 5.0
_SHARP = ("q_proj.weight", "k_proj.weight", "qkv_proj.weight", "q_norm.weight", "k_norm.weight")


def scaling_flags(scheme: str) -> list[str]:
    """Return the flags that scale the positions of a model of ``SCALED``."""
    return ["--position-scaling", scheme, "--position-scaling-factor", "2"]


def extension_flags(folder: Path) -> list[str]:
    """Return the flags of ``lmflow vocab extend`` for one of ``EXTENDED``; the text is written into a folder."""
    text = folder / "chinese.txt"
    lines = ["".join(_CHINESE[n * n * k % 97 % len(_CHINESE)] for k in range(1, 20)) for n in range(1, 40)]
    text.write_text("\n".join(lines), encoding="utf-8")
    return ["--files", str(text), "--size", "50"]


def make_model(name: str, folder: Path, *, seed: str = "", dtype: str = "float32", sharpness: float = 1.0) -> Path:
    """Write the model of a name into a folder, and return it.

    ``sharpness`` multiplies the projections of queries and keys: with more of it, positions tell.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, tokenizer, values = MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    ids = copy_tokenizer(tokenizer, folder)
    if model_type.startswith("gemma"):
        _call_tokenizer(folder, "GemmaTokenizer")
    sizes = {} if model_type == "gpt2" else _SIZES
    config = AutoConfig.for_model(model_type, **{**sizes, **ids, **values})
    network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    _fill(network, f"{seed}{name}", sharpness)
    network.save_pretrained(folder)
    return folder


def make_seeing(family: str, folder: Path) -> Path:
    """Write the model of a family of ``SEEING``, with its processor, into a folder, and return it."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    from lmflow_core.testing.seeing import FAMILIES, make_seeing_tokenizer

    tokenizer = make_seeing_tokenizer(family, AutoTokenizer.from_pretrained(DATA / "bpe"))
    tokenizer.add_tokens(["\n\n"])  # as the tokenizers of these models have, and llama.cpp looks for
    config, processor = FAMILIES[family](tokenizer)
    text = {**_SIZES, "head_dim": 16, "vocab_size": len(tokenizer) + 2}
    if family.startswith("qwen"):
        text["rope_parameters"] = _SECTIONS
    config.text_config.update({**text, **_SEEING_TEXT.get(family, {})})
    config.vision_config.update(SEEING[family])
    processor["image_processor"].update(_PIXELS[family])
    if "image_seq_len" in processor:
        processor["image_seq_len"] = 4
    network = AutoModelForImageTextToText.from_config(config)
    _fill(network, family)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def _fill(network: Any, name: str, sharpness: float = 1.0) -> None:
    import torch

    with torch.no_grad():
        for key, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(_values(f"{name}/{key}", tuple(parameter.shape))))
            if key.endswith(_SHARP):
                parameter.mul_(sharpness)


def _values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers between -0.25 and 0.25 that depend on the key alone."""
    count = int(np.prod(shape))
    raw = hashlib.shake_256(key.encode()).digest(count * 2)
    numbers = np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(131072)
    return numbers.reshape(shape)


def copy_tokenizer(name: str, folder: Path) -> dict[str, Any]:
    """Copy a tokenizer into a model's folder; return what the configuration must say of it."""
    for file in (DATA / name).iterdir():
        shutil.copyfile(file, folder / file.name)
    size = max(token["id"] for token in _tokens(DATA / name / "tokenizer.json")) + 1
    # Two places too many, as models often have.
    return {"vocab_size": size + 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}


def _call_tokenizer(folder: Path, name: str) -> None:
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "tokenizer_class": name}), encoding="utf-8")


def _tokens(file: Path) -> list[dict[str, Any]]:
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = [{"id": number} for number in content["model"]["vocab"].values()]
    return [*vocabulary, *content["added_tokens"]]


_LONG_VALUE = 32
# Written by every writer for itself.
_OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")


def described(file: Path) -> dict[str, Any]:
    """Return ``{"tensors": {name: [type, shape, digest]}, "keys": {name: [type, value]}}``."""
    reader = gguf.GGUFReader(file)
    tensors = {
        tensor.name: [
            tensor.tensor_type.name,
            [int(size) for size in tensor.shape],
            hashlib.sha256(tensor.data.tobytes()).hexdigest()[:16],
        ]
        for tensor in reader.tensors
    }
    keys = {name: _key(field) for name, field in reader.fields.items() if name not in _OWN}
    return {"tensors": dict(sorted(tensors.items())), "keys": dict(sorted(keys.items()))}


def _key(field: Any) -> list[Any]:
    value = field.contents()
    kind = "/".join(part.name for part in field.types)
    if isinstance(value, (list, str)) and len(value) > _LONG_VALUE:
        value = f"{len(value)}:{hashlib.sha256(repr(value).encode()).hexdigest()[:16]}"
    return [kind, value]


def _made_once(root: Path, make: Callable[[str, Path], Path]) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else make(name, folder)

    return made


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of the small model of a name, made once."""
    return _made_once(tmp_path_factory.mktemp("models"), make_model)


@pytest.fixture
def extension(tmp_path: Path) -> list[str]:
    """Give :func:`extension_flags`."""
    return extension_flags(tmp_path)


@pytest.fixture(scope="session")
def seeing_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of the small model of a family that sees, made once."""
    return _made_once(tmp_path_factory.mktemp("seeing"), make_seeing)


@pytest.fixture(scope="session")
def describe() -> Callable[[Path], dict[str, Any]]:
    """Give :func:`described`."""
    return described


@pytest.fixture(scope="session")
def sharp_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a small model whose answers depend on positions, made once."""
    root = tmp_path_factory.mktemp("sharp")

    def made(name: str) -> Path:
        folder = root / name
        return folder if folder.is_dir() else make_model(name, folder, sharpness=SHARPNESS)

    return made


@pytest.fixture(scope="session")
def exported(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the F32 file of a small model, made once."""
    root = tmp_path_factory.mktemp("exported")

    def made(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            _export(model_folder(name), root / f"{name}-source", folder)
        return next(folder.glob("*.gguf"))

    return made


def _export(source: Path, linked: Path, folder: Path) -> None:
    from lmflow_core.api import ModelSettings
    from lmflow_gguf.export import GgufExporter
    from lmflow_gguf.options import GgufOptions
    from lmflow_transformers.api import CausalModelLoader

    folder.mkdir()
    linked.mkdir()
    unnamed = str(linked / UNNAMED)
    (linked / UNNAMED).symlink_to(source)
    model = CausalModelLoader().open(unnamed, ModelSettings(model=unnamed, device="cpu", dtype="float32"))
    GgufExporter(GgufOptions(type=("F32",), pre_tokenizer="gpt-2")).export(model, folder, None)
