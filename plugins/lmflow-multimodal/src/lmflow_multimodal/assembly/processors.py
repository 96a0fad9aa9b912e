"""Processors for models that are assembled: of a tower's own settings where its folder has some, else of its type's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AddedToken, AutoImageProcessor, Idefics3Processor, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from lmflow_core.api import ModelError
from lmflow_multimodal.assembly.parts import Tower
from lmflow_multimodal.assembly.templates import IMAGE

_AROUND = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")


def llava_processor(tokenizer: Any, tower: Tower, folder: Path, chat_template: str | None) -> Any:
    """Return the processor of a LLaVA model, whose tokenizer has the token of an image from then on.

    Args:
        tokenizer: of the language model.
        tower: that sees.
        folder: the tower's, which may have settings of its own.
        chat_template: that takes images; None where there is none.

    Raises:
        ModelError: the settings of the folder make images of another size than the tower takes.
    """
    _add(tokenizer, [IMAGE])
    kind: Any = LlavaProcessor
    return kind(
        _images(tower, folder),
        tokenizer,
        patch_size=tower.network.config.patch_size,
        vision_feature_select_strategy=strategy(tower),
        num_additional_image_tokens=int(tower.type.has_class_token),
        chat_template=chat_template,
    )


def strategy(tower: Tower) -> str:
    """Return which places of a tower LLaVA takes: all, or those behind the class token."""
    return "default" if tower.type.has_class_token else "full"


def idefics3_processor(tokenizer: Any, tower: Tower, image_tokens: int, chat_template: str | None) -> Any:
    """Return the processor of an Idefics3 model, whose tokenizer has the tokens of images from then on.

    An image is brought to the size of the tower as a whole; it is not cut into tiles.

    Args:
        tokenizer: of the language model.
        tower: that sees.
        image_tokens: how many stand for an image.
        chat_template: that takes images; None where there is none.
    """
    _add(tokenizer, [IMAGE, *_AROUND])
    mean, deviation = tower.type.colours
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": tower.image_size}, max_image_size={"longest_edge": tower.image_size},
        do_image_splitting=False, image_mean=mean, image_std=deviation,
    )  # fmt: skip
    return Idefics3Processor(images, tokenizer, image_seq_len=image_tokens, chat_template=chat_template)


def _add(tokenizer: Any, tokens: list[str]) -> None:
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in tokens], special_tokens=True)


def _images(tower: Tower, folder: Path) -> Any:
    size = tower.image_size
    if not (folder / "preprocessor_config.json").is_file():
        mean, deviation = tower.type.colours
        return CLIPImageProcessorPil(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=mean,
            image_std=deviation,
        )
    images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)  # type: ignore[no-untyped-call]
    made = tuple(_size_of(images))
    # DINOv2 brings its positions to other sizes; the others do not.
    if made != (size, size) and tower.network.config.model_type != "dinov2":
        raise ModelError(
            f"--vision {folder} takes images of {size} x {size}, and its settings make {made[0]} x {made[1]}"
        )
    return images


def _size_of(images: Any) -> tuple[int, int]:
    found: dict[str, Any] = dict(images.crop_size if getattr(images, "do_center_crop", False) else images.size)
    edge = found.get("shortest_edge", 0)
    return int(found.get("height", edge)), int(found.get("width", edge))
