"""The rotary frequencies that transformers computes from some parameters."""

from __future__ import annotations

from typing import Any

from lmflow_core.contracts.position_scaling import Rope


def unscaled(rope: Rope) -> list[float]:
    """Return the frequencies theta^(-2i/d) of a model whose positions are not scaled, fastest first."""
    theta = float(rope.parameters["rope_theta"])
    return [float(theta ** (-2 * place / rope.dimension)) for place in range(rope.dimension // 2)]


def known_types() -> set[str]:
    """Return the names of the rotary embeddings that transformers can build."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    return {"default", *ROPE_INIT_FUNCTIONS}


def frequencies(rope: Rope, length: int) -> tuple[list[float], float]:
    """Return the frequencies, fastest first, and the factor of cosines and sines, for a text of some tokens.

    Those of the type ``default`` are computed here; all others by the functions of transformers itself.
    """
    kind = rope.parameters.get("rope_type", "default")
    if kind == "default":
        return unscaled(rope), 1.0
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config: Any = LlamaConfig(
        hidden_size=2 * rope.dimension,
        num_attention_heads=2,
        head_dim=rope.dimension,
        max_position_embeddings=rope.length,
        rope_parameters=dict(rope.parameters),
    )
    found, attention = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    return found.double().tolist(), float(attention)
