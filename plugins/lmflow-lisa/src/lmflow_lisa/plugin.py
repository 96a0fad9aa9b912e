"""Declares the LISA tuner."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TunerSpec, hookimpl
from lmflow_lisa.options import LisaOptions


@hookimpl
def lmflow_register_tuners() -> Iterable[TunerSpec]:
    """Offer LISA."""
    yield TunerSpec(
        name="lisa",
        target="lmflow_lisa.tuner:LisaTuner",
        summary="Train a few layers at a time, sampled anew every so often.",
        options=LisaOptions,
        learning_rate=1e-4,
    )
