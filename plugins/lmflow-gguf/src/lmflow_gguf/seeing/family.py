"""What conversion of the eyes does for each family, and what it does for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import gguf
from gguf import GGMLQuantizationType

from lmflow_gguf.architectures import Config, Tensor


@dataclass(frozen=True)
class Eyes:
    """Configurations of a model that sees: the whole, that of the eyes, and what the processor's files say."""

    whole: Config
    vision: Config
    processor: Config


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        projector: what GGUF calls that which leads from the eyes to the text.
        parameters: writes what :func:`write_shared` does not.
        tensors: gives, for a tensor of the whole model, those that take its place; nothing for one of the text.
        sizes: gives the configuration of the eyes with the sizes named as most families name them.
        activations: those of the eyes that llama.cpp computes.
        refusal: tells what llama.cpp would compute in another way, or None.
        note: tells what a user must know of the images that llama.cpp makes, or None.
        fixed: number formats of tensors, by their names in GGUF, that are the same for every type.
    """

    projector: gguf.VisionProjectorType
    parameters: Callable[[gguf.GGUFWriter, Eyes], None]
    tensors: Callable[[Tensor, Eyes], Iterator[Tensor]]
    sizes: Callable[[Config], Config] = lambda vision: vision
    activations: tuple[str, ...] = ("gelu_pytorch_tanh",)
    refusal: Callable[[Eyes], str | None] = lambda eyes: None
    note: Callable[[Eyes], str | None] = lambda eyes: None
    fixed: Mapping[str, GGMLQuantizationType] = field(default_factory=dict)


def write_shared(writer: gguf.GGUFWriter, family: Family, eyes: Eyes) -> None:
    """Write what every family has: sizes of the eyes, and colours of the images.

    Raises:
        KeyError: a configuration lacks a value.
    """
    vision = eyes.vision
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(family.projector)
    writer.add_vision_projection_dim(eyes.whole["hidden_size"])
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_image_mean(eyes.processor["image_mean"])
    writer.add_vision_image_std(eyes.processor["image_std"])


def named(tensor: Tensor, beginnings: Sequence[str]) -> bool:
    """Whether a tensor's name begins in one of some ways, behind ``model.`` where it is."""
    return tensor.name.removeprefix("model.").startswith(tuple(beginnings))
