"""The text of a model that sees, as if it stood alone."""

from __future__ import annotations

from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lmflow_core.api import ModelError
from lmflow_gguf.architectures import Config

# How names of tensors begin that are not of the text, behind "model." where it is.
_OF_IMAGES = ("vision_model.", "vision_tower.", "visual.", "connector.", "multi_modal_projector.")


def sees(config: Config) -> bool:
    """Whether a configuration is of a model that sees."""
    return config.get("vision_config") is not None


def text_config(config: Config) -> dict[str, Any]:
    """Return a configuration of a model that sees with that of its text in front, named as a causal model is.

    Raises:
        ModelError: transformers knows no causal model of the text's type.
    """
    text = dict(config["text_config"])
    kind = str(text.get("model_type"))
    named = _OWN.get(kind) or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if named is None:
        raise ModelError(f"a text of type {kind} cannot be written as GGUF")
    # Of what both have, the whole tells the family and whether there is a head.
    kept = {name: config[name] for name in ("model_type", "tie_word_embeddings") if name in config}
    return {**config, **text, **kept, "architectures": [named]}


# Texts that are no causal models of their own, by type.
_OWN = {
    "qwen2_vl_text": "Qwen2VLTextModel",
    "qwen2_5_vl_text": "Qwen2_5_VLTextModel",
}


def text_name(name: str) -> str | None:
    """Return what a tensor of the text is called where the text is a model of its own; None for any other tensor."""
    if name.removeprefix("model.").startswith(_OF_IMAGES):
        return None
    return name.replace("language_model.", "", 1).replace("text_model.", "", 1)
