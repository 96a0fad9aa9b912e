"""The models that are known to see, by the type that their configuration names."""

from __future__ import annotations

MODEL_TYPES = (
    "gemma3",
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "smolvlm",
)
