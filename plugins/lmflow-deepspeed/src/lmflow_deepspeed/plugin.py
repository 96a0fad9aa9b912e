"""Declares the engine ``deepspeed``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import EngineSpec, hookimpl
from lmflow_deepspeed.options import DeepSpeedOptions
from lmflow_transformers.options import LAUNCHER


@hookimpl
def lmflow_register_engines() -> Iterable[EngineSpec]:
    """Offer DeepSpeed."""
    yield EngineSpec(
        name="deepspeed",
        target="lmflow_deepspeed.engine:DeepSpeedEngine",
        summary="ZeRO: state, gradients and weights are spread.",
        options=DeepSpeedOptions,
        chosen_by="deepspeed",
        launcher=LAUNCHER,
        lighter=(
            "zero_stage=2",
            "zero_stage=3",
            "zero_stage=2 zero_offload_optimizer=cpu",
            "zero_stage=3 zero_offload_optimizer=cpu",
            "zero_stage=3 zero_offload_optimizer=cpu zero_offload_parameters=cpu",
        ),
        requires=("deepspeed",),
    )
