"""How many bytes an optimizer keeps for each parameter: counted on a few small ones, as any optimizer can be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from lmflow_core.api import ParameterGroup, TrainingSettings

_SIDES = (256, 512)
_ADAM = 8  # bytes for each number, in two float32 moments


class StateSizes:
    """Bytes of state by the kind of parameter: its name without numbers, and its dimensions.

    A matrix of r rows and c columns has ``a r c + b (r + c)`` bytes of state: ``a`` for an optimizer that keeps numbers
    for each weight, ``b`` for one that keeps them for rows and columns (Adafactor) or for projections of a fixed rank
    (GaLore). Both follow from two squares of different sizes. What has one dimension has ``a n + b`` bytes.

    Attributes:
        assumed: what could not be counted, or None.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        groups: Sequence[ParameterGroup],
        settings: TrainingSettings,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make an optimizer twice, let it take a step, and count.

        Args:
            make: as an optimizer's ``make``.
            groups: of the run; one parameter of each kind is taken.
            settings: of the run.
            dtype: number format of what the optimizer updates; None is that of the parameters.
        """
        self.assumed: str | None = None
        try:
            small, large = (_counted(make, groups, settings, side, dtype) for side in _SIDES)
        except Exception as error:  # a plugin's optimizer may need a device or a library that is not here
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            self.assumed = f"the optimizer's state could not be counted here ({reason}): {_ADAM} bytes a parameter"
            return
        self._small, self._large = small, large

    def bytes_of(self, name: str, parameter: torch.Tensor) -> int:
        """Return the bytes of state of a parameter."""
        if self.assumed is not None:
            return _ADAM * parameter.numel()
        key, (first, second) = _kind(name, parameter), _SIDES
        small, large = self._small[key], self._large[key]
        if parameter.dim() != 2:
            each = (large - small) / (second - first)
            return max(round(small + each * (parameter.numel() - first)), 0)
        each = (large / second - small / first) / (second - first)
        beside = small / first - each * first
        return max(round(each * parameter.numel() + beside / 2 * sum(parameter.shape)), 0)


def _kind(name: str, parameter: torch.Tensor) -> tuple[str, int]:
    return ".".join(part for part in name.split(".") if not part.isdigit()), parameter.dim()


def _counted(
    make: Callable[..., Any],
    groups: Sequence[ParameterGroup],
    settings: TrainingSettings,
    side: int,
    dtype: torch.dtype | None,
) -> dict[tuple[str, int], int]:
    """Return the bytes of state of one small parameter of each kind, behind a step."""
    kinds: dict[tuple[str, int], torch.nn.Parameter] = {}
    small = [replace(group, parameters=_small(group, kinds, side, dtype)) for group in groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = make([group for group in small if group.parameters], settings)
        for parameter in kinds.values():
            parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
    return {kind: _held(optimizer.state.get(parameter, {}).values()) for kind, parameter in kinds.items()}


def _small(
    group: ParameterGroup, kinds: dict[tuple[str, int], torch.nn.Parameter], side: int, dtype: torch.dtype | None
) -> dict[str, torch.nn.Parameter]:
    """Return a parameter of each kind of a group, and add it to those that are known."""
    chosen: dict[str, torch.nn.Parameter] = {}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in group.parameters.items():
        if (kind := _kind(name, parameter)) not in kinds:
            shape = (side,) * 2 if parameter.dim() == 2 else (side, *(1,) * (parameter.dim() - 1))
            values = torch.randn(shape, generator=generator).to(dtype or parameter.dtype)
            chosen[name] = kinds[kind] = torch.nn.Parameter(values)
    return chosen


def _held(values: Iterable[Any]) -> int:
    """Return the bytes of tensors, those of a single number left out: there is one for many."""
    tensors = [value for value in values if isinstance(value, torch.Tensor) and value.numel() > 1]
    storages = {id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
