"""Idefics3 and SmolVLM: SigLIP, and the pixel shuffle that makes one token of several patches.

Both are cut into tiles by llama.cpp whatever the processor's files say, and shown once as a whole behind them.
"""

from __future__ import annotations

from collections.abc import Iterator

import gguf
from gguf import GGMLQuantizationType, VisionProjectorType

from lmflow_gguf.architectures import Tensor
from lmflow_gguf.seeing.family import Eyes, Family, named


def _parameters(writer: gguf.GGUFWriter, eyes: Eyes) -> None:
    writer.add_vision_attention_layernorm_eps(eyes.vision["layer_norm_eps"])
    writer.add_vision_projector_scale_factor(eyes.whole["scale_factor"])
    writer.add_vision_use_gelu(True)
    writer.add_vision_preproc_image_size(_longest_edge(eyes))


def _longest_edge(eyes: Eyes) -> int:
    return int((eyes.processor.get("size") or {}).get("longest_edge", eyes.vision["image_size"]))


def _tensors(tensor: Tensor, eyes: Eyes) -> Iterator[Tensor]:
    if named(tensor, ("vision_model.", "connector.")):
        yield tensor


def _refusal(eyes: Eyes) -> str | None:
    tile = (eyes.processor.get("max_image_size") or {}).get("longest_edge")
    size = eyes.vision["image_size"]
    return f"its processor makes tiles of {tile} pixels, not {size}" if tile not in (None, size) else None


def _note(eyes: Eyes) -> str | None:
    if eyes.processor.get("do_image_splitting", True) and _longest_edge(eyes) > eyes.vision["image_size"]:
        return None
    return (
        "llama.cpp shows this family every image in tiles and then whole; this model was made for whole images alone, "
        "and is shown each of them twice: expect other answers than here"
    )


IDEFICS3 = Family(
    VisionProjectorType.IDEFICS3,
    _parameters,
    _tensors,
    refusal=_refusal,
    note=_note,
    fixed={"v.patch_embd.weight": GGMLQuantizationType.F32},
)
