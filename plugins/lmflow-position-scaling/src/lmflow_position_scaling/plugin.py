"""Declares the position scalings and the passkey benchmark, which tells how far they reach."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import BenchmarkSpec, PositionScalingSpec, hookimpl
from lmflow_position_scaling.options import Llama3Options, LongRopeOptions, YarnOptions
from lmflow_position_scaling.passkey import PasskeyOptions

_SCHEMES = "lmflow_position_scaling.schemes"


@hookimpl
def lmflow_register_position_scalings() -> Iterable[PositionScalingSpec]:
    """Offer the schemes that transformers can read back."""
    yield PositionScalingSpec(
        name="linear",
        target=f"{_SCHEMES}:linear",
        summary="Position interpolation: all frequencies slowed alike.",
        aliases=("pi",),
    )
    yield PositionScalingSpec(
        name="ntk", target=f"{_SCHEMES}:ntk", summary="Fixed NTK: a larger base; slow frequencies slowed most."
    )
    yield PositionScalingSpec(
        name="dynamic-ntk",
        target=f"{_SCHEMES}:dynamic_ntk",
        summary="NTK by the length at hand; short texts unchanged.",
    )
    yield PositionScalingSpec(
        name="yarn",
        target=f"{_SCHEMES}:yarn",
        summary="Slow frequencies slowed, fast kept, attention sharpened.",
        options=YarnOptions,
    )
    yield PositionScalingSpec(
        name="llama3",
        target=f"{_SCHEMES}:llama3",
        summary="Llama 3.1's rule: by wavelength, smooth between.",
        options=Llama3Options,
    )
    yield PositionScalingSpec(
        name="longrope",
        target=f"{_SCHEMES}:longrope",
        summary="A divisor of its own for each frequency.",
        options=LongRopeOptions,
    )


@hookimpl
def lmflow_register_benchmarks() -> Iterable[BenchmarkSpec]:
    """Offer passkey retrieval."""
    yield BenchmarkSpec(
        name="passkey",
        target="lmflow_position_scaling.passkey:PasskeyBenchmark",
        summary="Find a number hidden in filler, by depth and length.",
        options=PasskeyOptions,
    )
