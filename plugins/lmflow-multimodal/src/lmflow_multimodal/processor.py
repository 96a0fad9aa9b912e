"""A model's own processor, opened with Pillow alone and without what it has for videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from PIL.Image import Image
from transformers import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from lmflow_core.api import ModelError, printable
from lmflow_transformers.api import read_object

FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
# SmolVLM's makes the same of images, and needs one more package, for videos.
_INSTEAD = {"SmolVLMProcessor": "Idefics3Processor"}


def open_processor(folder: Path, config: Any, tokenizer: Any) -> Any:
    """Return the processor of a model's folder.

    Args:
        folder: the model's own.
        config: of the model.
        tokenizer: of transformers, open already.

    Raises:
        ModelError: the folder has none, or transformers cannot open it.
    """
    kind = _without_videos(_processor_class(folder, config.model_type))
    try:
        images: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)  # type: ignore[no-untyped-call]
        parts = {"image_processor": images, "tokenizer": tokenizer}
        told, _ = kind.get_processor_dict(folder, local_files_only=True)
        return kind.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], told)
    except Exception as error:  # transformers raises many kinds; all mean that there is no processor to be had
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 300)
        raise ModelError(f"{folder} has no processor for images that can be opened: {reason}") from error


def _processor_class(folder: Path, model_type: str) -> Any:
    """Return the class that the folder's files name, else the one of the model's type."""
    files = [folder / name for name in FILES[:2]]
    named = [read_object(file).get("processor_class") for file in files if file.is_file()]
    name = next((str(each) for each in named if each), PROCESSOR_MAPPING_NAMES.get(model_type, ""))
    found = getattr(transformers, _INSTEAD.get(name, name), None) if name.endswith("Processor") else None
    if found is None:
        raise ModelError(f"{folder}: transformers knows no processor {printable(name, 80)!r} for {model_type} models")
    return found


def _without_videos(kind: Any) -> Any:
    """Return a processor class that needs no processor of videos, which would need torchvision."""

    class WithoutVideos(kind):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    # Some attributes are read off the signature of the class's own __init__.
    return type(kind.__name__, (WithoutVideos,), {"__init__": kind.__init__})


def placeholder(processor: Any, config: Any) -> str:
    """Return the text that a prompt has for an image, with the marks around it that the processor does not put there.

    Args:
        processor: of the model.
        config: of the model.
    """
    token = str(getattr(processor, "boi_token", None) or processor.image_token)
    marks = [getattr(config, f"vision_{side}_token_id", None) for side in ("start", "end")]
    if None in marks:
        return token
    begin, end = processor.tokenizer.convert_ids_to_tokens(marks)
    return f"{begin}{token}{end}"


def sees_ahead(processor: Any) -> bool:
    """Whether a processor is of a model whose tokens of an image see those behind them: Gemma 3."""
    return hasattr(processor, "full_image_sequence")


def processed(processor: Any, text: str, images: Sequence[Image]) -> dict[str, Any]:
    """Return what a processor makes of some images and of a text with a placeholder for each, as tensors."""
    made = processor(
        text=[text], images=[list(images)], add_special_tokens=False, return_tensors="pt", return_mm_token_type_ids=True
    )
    return dict(made)
