"""Flash attention on a CPU: PyTorch's blocked kernel for scaled dot product attention, forced.

PyTorch takes its quadratic kernel in silence where this one does not apply; here that is an error. Memory is linear in
length: keys and values are read in blocks, and no matrix of length x length is ever formed.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lmflow_core.api import RequestError
from lmflow_transformers.api import AttentionInputs

_WINDOW_ROWS = 256


def cpu_attention(inputs: AttentionInputs) -> torch.Tensor:
    """Attend causally within each packed sequence; the result is (1, T, heads, head size).

    Raises:
        RequestError: the kernel cannot compute what the model asks for; the message names it.
    """
    _refuse(inputs)
    query, key = inputs.query, inputs.key
    grouped = query.shape[1] != key.shape[1]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        queries, keys = q.shape[2], k.shape[2]
        window = keys if inputs.window is None else min(inputs.window, keys)
        if window < keys or queries not in (1, keys):
            return _windowed(q, k, v, inputs.scaling, window, grouped)
        # One query sees every key; PyTorch's causal kernel would show it the first alone.
        return scaled_dot_product_attention(q, k, v, is_causal=queries > 1, scale=inputs.scaling, enable_gqa=grouped)

    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return inputs.per_sequence(attend)
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        raise RequestError(
            f"--attention flash: PyTorch's CPU kernel does not take queries {tuple(query.shape)} of {query.dtype}; "
            "use --attention sdpa"
        ) from error


def _refuse(inputs: AttentionInputs) -> None:
    sizes = [states.shape[-1] for states in (inputs.query, inputs.key, inputs.value)]
    problem = None
    if inputs.dropout:
        problem = f"attention dropout ({inputs.dropout})"
    elif inputs.softcap is not None:
        problem = "capped attention scores"
    elif inputs.sinks is not None:
        problem = "attention sinks"
    elif len(set(sizes)) > 1:
        problem = f"heads of different sizes ({', '.join(map(str, sizes))})"
    if problem:
        raise RequestError(f"--attention flash on a CPU does not support {problem}; use --attention sdpa")


def _windowed(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, window: int, grouped: bool
) -> torch.Tensor:
    """Attend to the last ``window`` positions, a block of queries at a time, with the keys those can see.

    The last keys are those of the queries; a cache may put more before them.
    The masks are blocks of rows x (rows + window), so memory stays linear in length.
    """
    length, before = query.shape[2], key.shape[2] - query.shape[2]
    attended = []
    for start in range(0, length, _WINDOW_ROWS):
        end, first = min(start + _WINDOW_ROWS, length), max(0, before + start - window + 1)
        rows = torch.arange(before + start, before + end, device=query.device)[:, None]
        columns = torch.arange(first, before + end, device=query.device)[None]
        seen = (columns <= rows) & (columns > rows - window)
        attended.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, first : before + end],
                value[:, :, first : before + end],
                attn_mask=seen,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(attended, dim=2)
