"""Qwen2-VL and Qwen2.5-VL: eyes that take images of any size, and merge squares of four patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import numpy as np
from gguf import VisionProjectorType

from lmflow_gguf.architectures import Config, Tensor, changed
from lmflow_gguf.seeing.family import Eyes, Family

_EPSILON = 1e-6  # a constant of the models
_IMAGE_SIZE = 560  # of no use to llama.cpp, which asks for it
_WINDOW = 112  # of Qwen2.5-VL's attention, in pixels; a constant of llama.cpp
_MERGED = 2  # of each side of a square; so is this


# --- sizes ------------------------------------------------------------------------------------------------------------


def _sizes(vision: Config) -> Mapping[str, Any]:
    named = {**vision, "num_attention_heads": vision["num_heads"], "num_hidden_layers": vision["depth"]}
    if "embed_dim" in vision:
        named |= {"hidden_size": vision["embed_dim"], "intermediate_size": vision["hidden_size"]}
    return {"image_size": _IMAGE_SIZE, **named}


# --- parameters -------------------------------------------------------------------------------------------------------


def _qwen2(writer: gguf.GGUFWriter, eyes: Eyes) -> None:
    writer.add_vision_attention_layernorm_eps(_EPSILON)


def _qwen2_5(writer: gguf.GGUFWriter, eyes: Eyes) -> None:
    writer.add_vision_attention_layernorm_eps(_EPSILON)
    writer.add_vision_use_silu(True)
    writer.add_vision_n_wa_pattern(eyes.vision["fullatt_block_indexes"][0] + 1)


# --- what llama.cpp takes for granted ---------------------------------------------------------------------------------


def _refusal(eyes: Eyes) -> str | None:
    for name in ("spatial_merge_size", "temporal_patch_size"):
        if eyes.vision[name] != _MERGED:
            return f"{name} is {eyes.vision[name]}, not {_MERGED}"
    return None


def _refusal_of_qwen2_5(eyes: Eyes) -> str | None:
    window, full = eyes.vision["window_size"], eyes.vision["fullatt_block_indexes"]
    if window != _WINDOW:
        return f"window_size is {window}, not {_WINDOW}"
    if list(full) != [*range(full[0], eyes.vision["num_hidden_layers"], full[0] + 1)]:
        return f"the layers of full attention, {', '.join(map(str, full))}, are not every {full[0] + 1}th"
    return _refusal(eyes)


# --- tensors ----------------------------------------------------------------------------------------------------------


def _tensors(tensor: Tensor, eyes: Eyes) -> Iterator[Tensor]:
    part, _, rest = tensor.name.removeprefix("model.").partition(".")
    if part != "visual":
        return
    if rest == "patch_embed.proj.weight":
        yield from _frames(tensor)
    elif ".qkv." in rest:
        yield from _split(tensor, f"{part}.{rest}")
    elif rest.startswith("merger.mlp."):
        yield _called(tensor, rest.replace("merger.mlp.", "mm."))
    else:
        yield _called(tensor, f"{part}.{rest}")


def _called(tensor: Tensor, name: str) -> Tensor:
    return Tensor(name, tensor.shape, tensor.read)


def _frames(tensor: Tensor) -> Iterator[Tensor]:
    """Give a convolution over two frames as one for each."""
    shape = (*tensor.shape[:2], *tensor.shape[3:])
    for frame, ending in enumerate(("", ".1")):
        read = changed(tensor, "", lambda values, frame=frame: np.ascontiguousarray(values[:, :, frame])).read  # type: ignore[misc]
        yield Tensor(f"v.patch_embd.weight{ending}", shape, read)


def _split(tensor: Tensor, name: str) -> Iterator[Tensor]:
    """Give queries, keys and values each as a tensor."""
    rows = tensor.shape[0] // 3
    for place, letter in enumerate("qkv"):
        part = slice(place * rows, (place + 1) * rows)
        read = changed(tensor, "", lambda values, part=part: values[part]).read  # type: ignore[misc]
        yield Tensor(name.replace("qkv", letter), (rows, *tensor.shape[1:]), read)


QWEN2_VL = Family(
    VisionProjectorType.QWEN2VL, _qwen2, _tensors, sizes=_sizes, activations=("quick_gelu",), refusal=_refusal
)
QWEN2_5_VL = Family(
    VisionProjectorType.QWEN25VL, _qwen2_5, _tensors, sizes=_sizes, activations=("silu",), refusal=_refusal_of_qwen2_5
)
