"""Which weights matter: the mean square of what each projection is given while the model reads a text.

The quantiser weighs the error of a column by it. The same numbers come from llama.cpp's own tool; here they are taken
from the model in torch, whose layers are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from lmflow_core.api import ModelError
from lmflow_gguf.architectures import layers_of
from lmflow_gguf.convert import Source
from lmflow_gguf.texts import read_text, windows
from lmflow_transformers.api import CausalModel

_WINDOW = 512


@torch.no_grad()
def importance_matrix(model: CausalModel, source: Source, text: Path) -> dict[str, np.ndarray]:
    """Return the mean square of each input of every projection, by the projection's name in GGUF.

    Raises:
        ModelError: the model is a mixture of experts, whose experts see different tokens each.
        DataError: the text cannot be read or is too short.
    """
    if any(key in source.config for key in ("num_local_experts", "num_experts")):
        raise ModelError("importance cannot be measured for a mixture of experts: leave out --calibration")
    model.load()
    names = gguf.get_tensor_name_map(source.architecture.arch, layers_of(source.config))
    sums: dict[str, torch.Tensor] = {}
    tokens = 0
    hooks = [
        module.register_forward_pre_hook(_adder(sums, found))
        for path, module in model.base.named_modules()
        if _is_projection(module)
        and (name := source.text_name(f"{path}.weight"))
        and (found := names.get_name(name, try_suffixes=(".weight",)))
    ]
    try:
        for ids in windows(model.tokenizer, read_text(text), _WINDOW, model.context_length):
            model.base(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
            tokens += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / tokens).float().cpu().numpy() for name, total in sums.items()}


def _is_projection(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _adder(sums: dict[str, torch.Tensor], name: str) -> Any:
    def add(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        squares = arguments[0].detach().double().square().flatten(0, -2).sum(0)
        sums[name] = sums[name] + squares if name in sums else squares

    return add
