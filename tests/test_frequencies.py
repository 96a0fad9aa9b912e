"""Rotary frequencies come from the parameters that are given, by transformers' own functions."""

from __future__ import annotations

import pytest

from lmflow_core.contracts.position_scaling import Rope
from lmflow_core.testing.frequencies import frequencies, unscaled

_PLAIN = Rope({"rope_type": "default", "rope_theta": 1e4}, 8, 256)


def test_unscaled_frequencies_fall_by_the_base() -> None:
    assert unscaled(_PLAIN) == pytest.approx([1.0, 0.1, 0.01, 0.001])
    assert frequencies(_PLAIN, 1000) == (unscaled(_PLAIN), 1.0)


def test_scaled_ones_follow_type_factor_and_length() -> None:
    pytest.importorskip("transformers")
    linear = Rope({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, 8, 1024)
    assert frequencies(linear, 8)[0] == pytest.approx([0.25, 0.025, 0.0025, 0.00025])
    dynamic = Rope({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, 8, 256)
    assert frequencies(dynamic, 256)[0] == pytest.approx(unscaled(_PLAIN))
    assert frequencies(dynamic, 1024)[0][-1] < 0.001 / 4
    long = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 256}
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    stretched = Rope({**long, **factors}, 8, 1024)
    assert frequencies(stretched, 257)[0] == pytest.approx([value / 2 for value in unscaled(_PLAIN)])
    assert frequencies(stretched, 256)[0] == pytest.approx(unscaled(_PLAIN))
