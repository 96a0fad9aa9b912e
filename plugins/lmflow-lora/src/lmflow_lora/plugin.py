"""Declares the LoRA and QLoRA tuners."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TunerSpec, hookimpl
from lmflow_lora.options import LoraOptions, QloraOptions


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer LoRA, and LoRA beside quantised weights."""
    yield TunerSpec(
        name="lora",
        target="lmflow_lora.tuner:LoraTuner",
        summary="Low-rank adapters (LoRA, DoRA, rsLoRA, PiSSA, LoRA+).",
        options=LoraOptions,
        adapter_file="adapter_config.json",
        learning_rate=2e-4,
    )
    yield TunerSpec(
        name="qlora",
        target="lmflow_lora.quantised:QloraTuner",
        summary="LoRA beside weights quantised to 4 or 8 bits (QLoRA).",
        options=QloraOptions,
        adapter_file="adapter_config.json",
        learning_rate=2e-4,
    )
