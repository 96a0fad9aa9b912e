"""The two parts that a model that sees is made of, opened and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from lmflow_core.api import ModelError, printable
from lmflow_transformers.api import check_folder

_CLIP_COLOURS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
_EVEN_COLOURS = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
_IMAGENET_COLOURS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@dataclass(frozen=True)
class TowerType:
    """A type of vision tower.

    Attributes:
        model: the class that reads its weights, also out of a model that has a text tower beside it.
        has_class_token: the first place is not a patch of the image.
        colours: means and deviations by which red, green and blue were scaled when it was trained.
    """

    model: str
    has_class_token: bool
    colours: tuple[list[float], list[float]]


_CLIP = TowerType("CLIPVisionModel", True, _CLIP_COLOURS)
_SIGLIP = TowerType("SiglipVisionModel", False, _EVEN_COLOURS)
TOWERS = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "dinov2": TowerType("Dinov2Model", True, _IMAGENET_COLOURS),
}


@dataclass(frozen=True)
class Language:
    """A language model of transformers and its tokenizer."""

    network: Any
    tokenizer: Any


@dataclass(frozen=True)
class Tower:
    """A vision tower of transformers, and its type."""

    network: Any
    type: TowerType

    @property
    def image_size(self) -> int:
        """Height and width of the images it takes, in pixels."""
        return int(self.network.config.image_size)

    @property
    def side(self) -> int:
        """How many patches stand beside each other in an image."""
        return self.image_size // int(self.network.config.patch_size)


def open_language(folder: Path) -> Language:
    """Open a causal language model.

    Raises:
        ModelError: the folder holds none.
    """
    config = _config(folder, "--language")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or hasattr(config, "vision_config"):
        raise ModelError(f"--language {folder} is no causal language model: it is a {config.model_type} model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network, told = _loaded(AutoModelForCausalLM, folder)
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"--language {folder} cannot be opened: {_reason(error)}") from error
    _check_whole(told, "--language", folder)
    return Language(network.eval(), tokenizer)


def open_tower(folder: Path) -> Tower:
    """Open a vision tower.

    Raises:
        ModelError: the folder holds none of a type that is known.
    """
    config = _config(folder, "--vision")
    kind = TOWERS.get(config.model_type)
    if kind is None:
        raise ModelError(
            f"--vision {folder} is no vision tower: it is a {config.model_type} model, not CLIP, SigLIP or DINOv2"
        )
    try:
        network, told = _loaded(getattr(transformers, kind.model), folder)
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"--vision {folder} cannot be opened: {_reason(error)}") from error
    _check_whole(told, "--vision", folder)
    return Tower(network.eval(), kind)


def _config(folder: Path, flag: str) -> Any:
    try:
        check_folder(folder)
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except ModelError as error:
        raise ModelError(f"{flag}: {error}") from error
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"{flag} {folder} cannot be opened: {_reason(error)}") from error


def _loaded(kind: Any, folder: Path) -> tuple[Any, Any]:
    """Return a network, and what transformers tells of its weights."""
    network, told = kind.from_pretrained(folder, dtype="auto", local_files_only=True, output_loading_info=True)
    return network, told


def _check_whole(told: Any, flag: str, folder: Path) -> None:
    # transformers draws at random what a folder lacks, with a warning.
    if missing := sorted(told["missing_keys"]):
        raise ModelError(f"{flag} {folder} lacks weights: {printable(', '.join(missing), 200)}")


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__, 300)
