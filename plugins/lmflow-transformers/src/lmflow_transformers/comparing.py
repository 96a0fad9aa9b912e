"""Whether two ways to compute something give the same."""

from __future__ import annotations

import torch


def alike(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Whether tensors are equal but for rounding: by a share of the largest finite entry; NaN equals NaN."""
    finite = theirs[theirs.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
