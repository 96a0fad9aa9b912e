"""MLX's affine quantisation: a group of weights shares a scale and a bias, and weight = scale * number + bias."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SMALLEST_STEP = 1e-7
# Rows are taken so many numbers at a time, as the work needs several times their memory.
_AT_A_TIME = 1 << 24


@dataclass(frozen=True)
class Quantised:
    """A quantised matrix (rows, columns).

    Attributes:
        weight: (rows, columns * bits / 32), uint32; the first number of each lies in its lowest bits.
        scales: (rows, columns / group), in the format of the matrix.
        biases: likewise.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    biases: torch.Tensor


def quantised(matrix: torch.Tensor, bits: int, group: int) -> Quantised:
    """Quantise a matrix (rows, columns) whose columns are a multiple of ``group``."""
    rows = max(1, _AT_A_TIME // matrix.shape[1])
    parts = [_quantised(part, bits, group) for part in torch.split(matrix, rows)]
    weight, scales, biases = (torch.cat(kind) for kind in zip(*parts, strict=True))
    return Quantised(weight, scales, biases)


def _quantised(matrix: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return packed numbers, scales and biases.

    The end of a group's range that is further from zero is kept exactly, and zero is one of its numbers wherever it
    lies in the range. So the scale, at first the range by the number of steps, is moved to the nearest for which it is.
    """
    groups = matrix.float().reshape(len(matrix), -1, group)
    low, high = groups.amin(-1), groups.amax(-1)
    most = 2**bits - 1
    below = low.abs() > high.abs()
    step = ((high - low) / most).clamp(min=_SMALLEST_STEP)
    step = torch.where(below, step, -step)
    end = torch.where(below, low, high)
    steps_to_zero = (end / step).round()
    has_zero = steps_to_zero != 0
    scales = torch.where(has_zero, end / steps_to_zero, step)
    biases = torch.where(has_zero, end, 0.0)
    numbers = ((groups - biases[..., None]) / scales[..., None]).round().clamp(0, most)
    return _packed(numbers.reshape(matrix.shape), bits), scales.to(matrix.dtype), biases.to(matrix.dtype)


def _packed(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Return numbers (rows, columns) of so many bits end to end in words of 32."""
    words = numbers.to(torch.int64).reshape(len(numbers), -1, 32 // bits)
    return (words << torch.arange(0, 32, bits)).sum(-1).to(torch.uint32)
