"""Whether two ways to compute something give the same."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor


def alike(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Whether tensors are equal but for rounding: by a share of the largest finite entry; NaN equals NaN."""
    finite = theirs[theirs.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


def has_numbers(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds numbers, so that something can be tried with it; one of a plan has a shape alone."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors begin at the same place of the same memory, whether or not there are numbers in it."""
    return one.untyped_storage() is other.untyped_storage() and one.storage_offset() == other.storage_offset()
