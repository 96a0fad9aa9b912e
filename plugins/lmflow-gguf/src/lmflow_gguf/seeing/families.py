"""The families whose eyes can be written, by the type that their configuration names."""

from __future__ import annotations

from collections.abc import Mapping

from lmflow_core.api import ModelError
from lmflow_gguf.architectures import Config
from lmflow_gguf.seeing.family import Eyes, Family
from lmflow_gguf.seeing.idefics3 import IDEFICS3
from lmflow_gguf.seeing.qwen import QWEN2_5_VL, QWEN2_VL

FAMILIES: Mapping[str, Family] = {
    "idefics3": IDEFICS3,
    "smolvlm": IDEFICS3,
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
}


def family_of(config: Config) -> Family:
    """Return what conversion does for the eyes of a model.

    Raises:
        ModelError: the family is not supported; the message lists those that are.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise ModelError(
            f"a model that sees of type {kind} cannot be written as GGUF; of these it can: {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def check_eyes(family: Family, eyes: Eyes) -> None:
    """Check that llama.cpp computes what the configurations say.

    Raises:
        ModelError: it would not.
    """
    activation = eyes.vision.get("hidden_act")
    problem = family.refusal(eyes)
    if activation is not None and activation not in family.activations:
        problem = f"the activation {activation} is not {family.activations[0]}"
    if problem:
        raise ModelError(f"llama.cpp would compute the eyes of this model wrongly: {problem}")
