"""Drafts that are looked up for several answers at once."""

from __future__ import annotations

import random

import pytest

from lmflow_core.api import BatchLimits, DecodingRequest, ModelSettings
from lmflow_core.testing.batches import ids_of, run_at_random, run_batch
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_speculative.decoders import PromptLookupDecoder
from lmflow_speculative.options import PromptLookupOptions
from lmflow_speculative.pace import Pace
from lmflow_transformers.api import CausalModel, CausalModelLoader, SamplingOptions
from lmflow_transformers.sampling import SamplingDecoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", max_position_embeddings=512)
    opened = CausalModelLoader().open(str(folder), ModelSettings(model="tiny", device="cpu"))
    opened.load()
    return opened


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_any_composition_gives_the_answers_of_plain_sampling(model: CausalModel, temperature: float) -> None:
    source = random.Random(int(temperature * 10))
    asked, expected = [], []
    for seed in range(24):
        part = [source.randrange(5, 390) for _ in range(source.randrange(1, 12))]
        stop = frozenset(source.sample(range(390), 5))
        request = DecodingRequest(part * source.randrange(1, 5), source.randrange(1, 60), stop, seed)
        options = PromptLookupOptions(temperature=temperature, top_k=20, draft_length=source.choice([1, 4, 8]))
        asked.append((request, PromptLookupDecoder(options)))
        plain = SamplingDecoder(SamplingOptions(temperature=temperature, top_k=20))
        expected.append(ids_of(plain.decode(model, request)))
    # The seed makes of an answer what it makes of it without drafts, alone too.
    assert [ids_of(decoder.decode(model, request)) for request, decoder in asked] == expected
    batch = asked[0][1].open_batch(model, BatchLimits(answers=5))
    assert batch is not None
    tokens, removed = run_at_random(batch, asked, source)
    for place, ids in enumerate(expected):
        assert tokens[place] == (ids[: len(tokens[place])] if place in removed else ids), place
    together = run_batch(batch, asked)
    assert [ids_of(steps) for steps in together] == expected
    if temperature == 0:
        accepted = sum(step.accepted for steps in together for step in steps)
        passes = sum(len(steps) for steps in together)
        assert accepted > 20
        assert passes + accepted == sum(map(len, expected))


def test_drafts_must_gain_more_where_many_answers_share_a_pass() -> None:
    def lengths(beside: int) -> list[int]:
        pace = Pace(8, 0.0, quick=True)
        told = []
        for _ in range(12):
            told.append(pace.length())
            pace.tell(told[-1], min(told[-1], 1), beside)
        return told

    assert 0 not in lengths(1)  # one of two or more tokens holds: it pays alone
    assert lengths(16).count(0) > 4
