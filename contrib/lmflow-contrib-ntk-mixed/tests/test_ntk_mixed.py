"""The frequencies against the formula, in a network of transformers, and in what is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_contrib_ntk_mixed.plugin import NtkMixedOptions
from lmflow_contrib_ntk_mixed.scheme import ntk_mixed
from lmflow_core.api import Rope

THETA, HEAD, TRAINED = 10000.0, 8, 256


def _frequencies(factor: float, b: float = 0.625, dimension: int = HEAD) -> list[float]:
    """Each frequency as a product, so that each step of the slowing is seen: it never falls below 1."""
    half = dimension // 2
    a = math.log(factor) / half**b
    slowed, frequencies = 1.0, []
    for i in range(half):
        step = math.exp(a * ((i + 1) ** b - i**b if i else 1.0))
        assert step >= 1
        slowed *= step
        frequencies.append(THETA ** (-2 * i / dimension) / slowed)
    return frequencies


@pytest.mark.parametrize("dimension", [2, 8, 128])
@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("b", [0.0, 0.625, 1.0])
def test_divisors_are_those_of_the_formula(b: float, factor: float, dimension: int) -> None:
    rope = Rope({"rope_type": "default", "rope_theta": THETA}, dimension, TRAINED)
    scaled = ntk_mixed(rope, factor, NtkMixedOptions(ntk_mixed_b=b))
    used = [THETA ** (-2 * i / dimension) / by for i, by in enumerate(scaled.parameters["long_factor"])]
    assert used == pytest.approx(_frequencies(factor, b, dimension))
    assert scaled.parameters["short_factor"] == scaled.parameters["long_factor"]
    assert scaled.parameters["long_factor"][-1] == pytest.approx(factor)
    assert (scaled.length, scaled.parameters["rope_theta"]) == (TRAINED * factor, THETA)
    if b == 0:
        assert scaled.parameters["long_factor"] == pytest.approx([factor] * (dimension // 2))


def _logits(network: Any, length: int) -> Any:
    import torch

    with torch.no_grad():
        return network(torch.arange(3, 3 + length)[None] % 390).logits


@pytest.mark.parametrize("length", [100, TRAINED + 100])
def test_the_model_that_is_saved_turns_by_these_angles(
    length: int, lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="runs a model")
    transformers = pytest.importorskip("transformers", reason="runs a model")
    pytest.importorskip("lmflow_transformers", reason="writes the model")
    from lmflow_core.testing.tiny import make_tiny_model

    model = make_tiny_model(tmp_path / "m", max_position_embeddings=TRAINED, initializer_range=0.3)
    flags = ("--position-scaling", "ntk-mixed", "--position-scaling-factor", 4)
    told = lmflow_cli("export", "--model", model, "--output", tmp_path / "x", *flags)
    assert told.status == 0, told.stderr
    config = json.loads((tmp_path / "x" / "config.json").read_text(encoding="utf-8"))
    assert config["max_position_embeddings"] == 4 * TRAINED

    unscaled = transformers.AutoModelForCausalLM.from_pretrained(model)
    plain = _logits(unscaled, length)
    unscaled.model.rotary_emb.inv_freq.copy_(torch.tensor(_frequencies(4.0)))
    expected = _logits(unscaled, length)
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x")
    torch.testing.assert_close(_logits(saved, length), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_every_decoder_takes_it(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    for plugin in ("lmflow_transformers", "lmflow_speculative", "lmflow_streaming"):
        pytest.importorskip(plugin, reason="decodes")
    from lmflow_core.testing.tiny import make_tiny_model

    model = make_tiny_model(tmp_path / "m", max_position_embeddings=32, initializer_range=0.3)
    flags = ("--position-scaling", "ntk-mixed", "--position-scaling-factor", 4, "--prompt", "the lazy dog " * 6)
    answers = set()
    for decoder in ("sampling", "prompt-lookup", "streaming"):
        told = lmflow_cli("generate", "--model", model, *flags, "--decoder", decoder, "--max-new-tokens", 30)
        assert told.status == 0, told.stderr
        answers.add(told.stdout)
    assert len(answers) == 1


def test_b_has_bounds(lmflow_cli: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("lmflow_transformers", reason="opens a model")
    flags = ("--position-scaling", "ntk-mixed", "--position-scaling-factor", 2, "--ntk-mixed-b", 1.5)
    told = lmflow_cli("export", "--model", tmp_path, "--output", tmp_path / "x", *flags)
    assert told.status == 2
    assert "--ntk-mixed-b" in told.stderr
