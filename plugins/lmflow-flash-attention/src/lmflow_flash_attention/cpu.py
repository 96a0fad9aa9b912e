"""Flash attention on a CPU: PyTorch's blocked kernel for scaled dot product attention, forced.

PyTorch takes its quadratic kernel in silence where this one does not apply; here that is an error. Memory is linear in
length: keys and values are read in blocks, and no matrix of length x length is ever formed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lmflow_core.api import RequestError
from lmflow_transformers.api import apart

_WINDOW_ROWS = 256


def cpu_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each packed example; arguments and result as ``packed_attention`` of the torch runtime.

    Raises:
        RequestError: the kernel cannot compute what the model asks for; the message names it.
    """
    _refuse(query, key, value, dropout, softcap, others.get("s_aux"))
    grouped = query.shape[1] != key.shape[1]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        queries, keys = q.shape[2], k.shape[2]
        window = keys if sliding_window is None else min(sliding_window, keys)
        if window < keys or queries not in (1, keys):
            return _windowed(q, k, v, scaling, window, grouped)
        # One query sees every key; PyTorch's causal kernel would show it the first alone.
        return scaled_dot_product_attention(q, k, v, is_causal=queries > 1, scale=scaling, enable_gqa=grouped)

    try:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return apart(attend, query, key, value, cu_seq_lens_q), None
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        raise RequestError(
            f"--attention flash: PyTorch's CPU kernel does not take queries {tuple(query.shape)} of {query.dtype}; "
            "use --attention sdpa"
        ) from error


def _refuse(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, softcap: float | None, sinks: Any
) -> None:
    problem = None
    if dropout:
        problem = f"attention dropout ({dropout})"
    elif softcap is not None:
        problem = "capped attention scores"
    elif sinks is not None:
        problem = "attention sinks"
    elif not query.shape[-1] == key.shape[-1] == value.shape[-1]:
        problem = f"heads of different sizes ({query.shape[-1]}, {key.shape[-1]}, {value.shape[-1]})"
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
