"""Declares the tuner ``ln``."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TunerSpec, hookimpl


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer LN-tuning."""
    yield TunerSpec(
        name="ln",
        target="lmflow_contrib_ln.tuner:LnTuner",
        summary="The normalisation weights alone (LN-tuning).",
        adapter_file="ln_adapter.json",
        learning_rate=1e-3,
    )
