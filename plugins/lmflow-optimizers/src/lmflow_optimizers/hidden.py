"""Which parameters are weight matrices of hidden layers: of those alone the directions of an update mean something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lmflow_core.api import ParameterGroup, RequestError, TrainingSettings
from lmflow_transformers.api import torch_groups

# Layers are items of a list, so that a number stands in the names of all that is in them.
_IN_A_LIST = re.compile(r"\.\d+\.")
# Tables that are looked up, and heads, wherever they stand: GPT-2's wte, T5's relative_attention_bias, GPT-NeoX's.
_NO_MAP = re.compile(r"(?:^|[._])(?:embed\w*|wte|wpe|word_embeddings|shared|relative_attention_bias)(?:[._]|$)")
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|head|score|classifier|embed_out|output_projection)(?:\.|$)")


def is_hidden_matrix(name: str, parameter: Any) -> bool:
    """Whether a parameter is a weight matrix between hidden states, or a factor of an adapter on one.

    It is of two dimensions, within a numbered layer, and no embedding and no head. Stacks of matrices, such as those of
    experts, are none: of them each would have to be treated by itself.
    """
    matrix = parameter.dim() == 2 and min(parameter.shape) > 1
    return bool(matrix and _IN_A_LIST.search(name) and not _NO_MAP.search(name) and not _HEAD.search(name))


def split_groups(
    groups: Sequence[ParameterGroup], settings: TrainingSettings, optimizer: str
) -> list[tuple[bool, dict[str, Any]]]:
    """Return a torch group for each parameter, in their order, each with whether it is a hidden weight matrix.

    Raises:
        RequestError: none of them is.
    """
    names = [name for group in groups for name in group.parameters]
    single = [
        {**group, "params": [parameter]} for group in torch_groups(groups, settings) for parameter in group["params"]
    ]
    split = [(is_hidden_matrix(name, group["params"][0]), group) for name, group in zip(names, single, strict=True)]
    if not any(hidden for hidden, _ in split):
        raise RequestError(
            f"--optimizer {optimizer} is for weight matrices of numbered layers, and nothing that trains here is one "
            f"(it begins with {names[0]!r}): take --optimizer adamw"
        )
    return split
