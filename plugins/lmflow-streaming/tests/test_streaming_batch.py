"""Texts of any length that share passes of a model, each through a window of its own."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lmflow_core.api import BatchLimits, DecodingRequest, ModelSettings
from lmflow_core.testing.batches import ids_of, run_at_random, run_batch
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_streaming.decoder import StreamingDecoder
from lmflow_streaming.options import StreamingOptions
from lmflow_transformers.models import CausalModel, CausalModelLoader

_SERVICES: Any = None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", max_position_embeddings=64)
    opened = CausalModelLoader().open(str(folder), ModelSettings(model="tiny", device="cpu"))
    opened.load()
    return opened


def _decoder(model: CausalModel, window: int, sinks: int, temperature: float) -> StreamingDecoder:
    options = StreamingOptions(attention_window=window, attention_sinks=sinks, temperature=temperature)
    decoder = StreamingDecoder(options)
    decoder.prepare(model, _SERVICES)
    return decoder


@pytest.mark.parametrize("seed", range(4))
def test_any_composition_gives_the_answers_alone(model: CausalModel, seed: int) -> None:
    source = random.Random(seed)
    texts = [[source.randrange(5, 390) for _ in range(150)] for _ in range(3)]
    asked = []
    for number in range(24):
        prompt = source.choice(texts)[: source.choice([1, 10, 30, 60, 150])]
        prompt = [*prompt, *(source.randrange(5, 390) for _ in range(source.choice([0, 0, 5])))]
        window, sinks = source.choice([(32, 4), (32, 4), (16, 2), (48, 0)])
        decoder = _decoder(model, window, sinks, source.choice([0.0, 1.0]))
        asked.append((DecodingRequest(prompt, source.randrange(1, 60), seed=number), decoder))
    alone = [list(decoder.decode(model, request)) for request, decoder in asked]
    # What ended before is of no use to those that run alone.
    fresh = [ids_of(StreamingDecoder(decoder._options).decode(model, request)) for request, decoder in asked]
    assert [ids_of(steps) for steps in alone] == fresh
    batch = asked[0][1].open_batch(model, BatchLimits(answers=source.choice([3, 8]), cache_tokens=2000))
    assert batch is not None
    tokens, removed = run_at_random(batch, asked, source)
    for place, expected in enumerate(fresh):
        found = tokens[place]
        assert found == (expected[: len(found)] if place in removed else expected), place
    together = run_batch(batch, asked)
    assert [ids_of(steps) for steps in together] == fresh
    dropped = [sum(step.dropped for step in steps) for steps in together]
    assert dropped == [sum(step.dropped for step in steps) for steps in alone]
    assert max(dropped) > 50


def test_memory_does_not_grow_with_the_text(model: CausalModel) -> None:
    decoder = _decoder(model, 32, 4, 0.0)
    batch = decoder.open_batch(model, BatchLimits(cache_tokens=100))
    assert batch is not None
    batch.check(DecodingRequest(range(5, 305), 100_000), decoder)
    batch.add(DecodingRequest(range(5, 305), 300), decoder)
    while batch.step():
        held = {layer.keys.shape[2] for answer in batch._running for layer in answer.opened.layers}
        assert all(tokens <= 100 for tokens in held)
