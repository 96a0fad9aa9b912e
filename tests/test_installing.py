"""Where a message says that a missing distribution comes from."""

from __future__ import annotations

import pytest

from lmflow_core import installing
from lmflow_core.api import how_to_install

BEFORE = {
    ("lmflow-lora", None): "in a checkout of LMFlow, pip install ./plugins/lmflow-lora",
    ("lmflow-gguf", "llama-cpp"): "in a checkout of LMFlow, pip install './plugins/lmflow-gguf[llama-cpp]'",
    ("lmflow-contrib-slic", None): "in a checkout of LMFlow, pip install ./contrib/lmflow-contrib-slic",
    ("pyarrow", None): "pip install pyarrow",
    ("datasets", "vision"): "pip install 'datasets[vision]'",
}
AFTER = {
    ("lmflow-lora", None): "pip install lmflow-lora",
    ("lmflow-gguf", "llama-cpp"): "pip install 'lmflow-gguf[llama-cpp]'",
    ("pyarrow", None): "pip install pyarrow",
}


@pytest.mark.parametrize(("published", "expected"), [(False, BEFORE), (True, AFTER)])
def test_ours_come_from_a_checkout_until_they_are_published(
    monkeypatch: pytest.MonkeyPatch, published: bool, expected: dict[tuple[str, str | None], str]
) -> None:
    monkeypatch.setattr(installing, "PUBLISHED", published)
    assert {wanted: how_to_install(*wanted) for wanted in expected} == expected
