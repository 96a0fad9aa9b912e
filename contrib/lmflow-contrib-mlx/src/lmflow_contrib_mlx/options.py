"""Options of the exporter."""

from __future__ import annotations

from dataclasses import dataclass

from lmflow_core.api import option

BITS, GROUPS = (4, 8), (32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class MlxOptions:
    """Whether and how finely weights are quantised."""

    mlx_bits: int | None = option(None, help="Bits of a weight, 4 or 8; weights are not quantised when left out.")
    mlx_group_size: int = option(64, help="Weights that share a scale and a bias: 32, 64 or 128.")

    def __post_init__(self) -> None:
        if self.mlx_bits not in (None, *BITS):
            raise ValueError(f"--mlx-bits must be 4 or 8, not {self.mlx_bits}")
        if self.mlx_group_size not in GROUPS:
            raise ValueError(f"--mlx-group-size must be 32, 64 or 128, not {self.mlx_group_size}")
