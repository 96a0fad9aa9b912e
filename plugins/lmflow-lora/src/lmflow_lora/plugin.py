"""Declares the LoRA tuner."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TunerSpec, hookimpl
from lmflow_lora.options import LoraOptions


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer LoRA."""
    yield TunerSpec(
        name="lora",
        target="lmflow_lora.tuner:LoraTuner",
        summary="Low-rank adapters (LoRA, DoRA, rsLoRA, PiSSA, LoRA+).",
        options=LoraOptions,
        adapter_file="adapter_config.json",
        learning_rate=2e-4,
    )
