"""Mixed NTK (NTK-RoPE-mixed, Jianlin Su 2023, https://kexue.fm/archives/9706)."""

from __future__ import annotations

import dataclasses
import math

from lmflow_contrib_ntk_mixed.plugin import NtkMixedOptions
from lmflow_core.api import Rope


def ntk_mixed(rope: Rope, factor: float, options: NtkMixedOptions | None = None) -> Rope:
    """Divide frequency i = 0, 1, … of d/2 by exp(a * (i+1)^b), with a such that the slowest is divided by the factor.

    So a = ln(factor) / (d/2)^b. With b = 0 it is position interpolation; with b = 1 it is NTK by equal steps. Either
    way a model sees no angle at its slowest frequency that it was not trained on.

    transformers has no type of that name. Its ``longrope`` takes a divisor for each frequency, one list up to the
    trained length and one beyond it: here they are the same. Cosines and sines are not scaled.
    """
    b = (options or NtkMixedOptions()).ntk_mixed_b
    count = rope.dimension // 2
    divisors = [math.exp(math.log(factor) * ((i + 1) / count) ** b) for i in range(count)]
    changes = {
        "rope_type": "longrope",
        "factor": factor,
        "original_max_position_embeddings": rope.length,
        "attention_factor": 1.0,
        "short_factor": divisors,
        "long_factor": divisors,
    }
    return dataclasses.replace(rope, parameters={**rope.parameters, **changes}, length=round(rope.length * factor))
