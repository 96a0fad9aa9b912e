"""The schemes: rotary parameters of a model to those of one whose positions reach further.

Throughout, d is the rotated dimension, theta the base, L the trained length, s the factor; frequency i of d/2 is
theta^(-2i/d). Only numbers are written; the spelling is that of transformers, which computes the frequencies.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lmflow_core.api import RequestError, Rope
from lmflow_position_scaling.options import Llama3Options, LongRopeOptions, YarnOptions


def linear(rope: Rope, factor: float, options: None = None) -> Rope:
    """Position interpolation: every frequency divided by s (Chen et al., arXiv:2306.15595)."""
    return _reaching(rope, factor, rope_type="linear", factor=factor)


def ntk(rope: Rope, factor: float, options: None = None) -> Rope:
    """Fixed NTK: the base becomes theta * s^(d/(d-2)), so the slowest frequency is divided by s, the fastest by 1.

    transformers has no type of that name: the type stays ``default`` with another base.
    """
    if rope.dimension <= 2:
        raise RequestError("--position-scaling ntk needs more than one frequency")
    theta = rope.parameters["rope_theta"] * factor ** (rope.dimension / (rope.dimension - 2))
    return _reaching(rope, factor, rope_theta=theta)


def dynamic_ntk(rope: Rope, factor: float, options: None = None) -> Rope:
    """Dynamic NTK: at length n > L the base becomes theta * (s*n/L - (s-1))^(d/(d-2)); up to L nothing changes.

    The length stays L: transformers takes ``max_position_embeddings`` for the trained length. At factor 1 its formula
    would still raise the base beyond L, so nothing is set.
    """
    if factor == 1:
        return rope
    return dataclasses.replace(rope, parameters={**rope.parameters, "rope_type": "dynamic", "factor": factor})


def yarn(rope: Rope, factor: float, options: YarnOptions | None = None) -> Rope:
    """YaRN (Peng et al., arXiv:2309.00071): slow frequencies divided by s, fast ones kept, a ramp between.

    Cosines and sines are multiplied by 0.1 * ln(s) + 1.
    """
    chosen = options or YarnOptions()
    return _reaching(
        rope,
        factor,
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=rope.length,
        beta_fast=chosen.yarn_beta_fast,
        beta_slow=chosen.yarn_beta_slow,
    )


def llama3(rope: Rope, factor: float, options: Llama3Options | None = None) -> Rope:
    """Llama 3.1's rule: wavelengths above L/low are stretched by s, below L/high kept, smooth between."""
    chosen = options or Llama3Options()
    return _reaching(
        rope,
        factor,
        rope_type="llama3",
        factor=factor,
        original_max_position_embeddings=rope.length,
        low_freq_factor=chosen.llama3_low_freq_factor,
        high_freq_factor=chosen.llama3_high_freq_factor,
    )


def longrope(rope: Rope, factor: float, options: LongRopeOptions | None = None) -> Rope:
    """LongRoPE (Ding et al., arXiv:2402.13753): a divisor of its own for each frequency, beyond L and up to it.

    Without divisors found by the paper's search, those of NTK are taken beyond L: s^(2i/(d-2)).

    Raises:
        RequestError: the number of divisors given is not that of the frequencies.
    """
    chosen = options or LongRopeOptions()
    count = rope.dimension // 2
    short = list(chosen.longrope_short_factor) or [1.0] * count
    long = list(chosen.longrope_long_factor) or [factor ** (i / max(count - 1, 1)) for i in range(count)]
    for name, given in (("short", short), ("long", long)):
        if len(given) != count:
            raise RequestError(f"--longrope-{name}-factor: the model has {count} frequencies, not {len(given)}")
    return _reaching(
        rope,
        factor,
        rope_type="longrope",
        factor=factor,
        original_max_position_embeddings=rope.length,
        short_factor=short,
        long_factor=long,
    )


def _reaching(rope: Rope, reach: float, /, **changes: Any) -> Rope:
    """Return a model's rotary embeddings with some parameters changed and its length multiplied."""
    return dataclasses.replace(rope, parameters={**rope.parameters, **changes}, length=round(rope.length * reach))
