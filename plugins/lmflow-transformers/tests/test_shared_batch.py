"""Answers that share passes: each is the one it would be alone, whatever is beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from lmflow_core.api import BatchLimits, DecodingRequest, ModelSettings, RequestError
from lmflow_core.testing.batches import ids_of, run_at_random, run_batch
from lmflow_core.testing.tiny import make_tiny_model, make_tokenizer
from lmflow_transformers.batching.batch import SharedBatch
from lmflow_transformers.batching.shared_pass import shared_pass
from lmflow_transformers.batching.trial import cache_bytes_per_token
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.options import SamplingOptions
from lmflow_transformers.sampling import SamplingDecoder

_CONTEXT = 512
_SHAPE = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": _CONTEXT,
    "pad_token_id": 2,
}
_OPTIONS = (
    SamplingOptions(),
    SamplingOptions(temperature=1.0, top_p=0.9),
    SamplingOptions(temperature=0.8, top_k=20, repetition_penalty=1.3, logprobs=2),
)


def _opened(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model="tiny", device="cpu"))
    model.load()
    return model


def _made(folder: Path, config: Any) -> CausalModel:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return _opened(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    return _opened(make_tiny_model(tmp_path_factory.mktemp("full") / "model", max_position_embeddings=_CONTEXT))


@pytest.fixture(scope="module", params=["full", "every layer a window", "every other layer a window"])
def any_layout(request: pytest.FixtureRequest, model: CausalModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "full":
        return model
    if request.param == "every layer a window":
        config: Any = MistralConfig(**_SHAPE, sliding_window=16)
    else:
        config = Gemma2Config(**_SHAPE, sliding_window=16, query_pre_attn_scalar=8)
    return _made(tmp_path_factory.mktemp("window") / "model", config)


def _asked(source: random.Random, count: int) -> list[tuple[DecodingRequest, SamplingDecoder]]:
    """Return requests many of which begin alike; some are the same but for their seeds."""
    texts = [[source.randrange(5, 390) for _ in range(160)] for _ in range(3)]
    asked = []
    for seed in range(count):
        start = source.choice(texts)[: source.choice([1, 9, 40, 160])]
        end = [source.randrange(5, 390) for _ in range(source.randrange(30))] if source.random() < 0.8 else []
        stop = frozenset([source.randrange(5, 390) for _ in range(10)])
        request = DecodingRequest([*start, *end], source.randrange(1, 40), stop, seed)
        asked.append((request, SamplingDecoder(source.choice(_OPTIONS))))
    return asked


def _alone(model: CausalModel, asked: Sequence[tuple[DecodingRequest, SamplingDecoder]]) -> list[list[int]]:
    return [ids_of(decoder.decode(model, request)) for request, decoder in asked]


def _batch(model: CausalModel, **limits: Any) -> SharedBatch:
    pass_tokens = limits.pop("pass_tokens", 24)
    size = cache_bytes_per_token(model)
    assert size is not None
    return SharedBatch(model, BatchLimits(**limits), size, pass_tokens=pass_tokens)


@pytest.mark.parametrize("seed", range(4))
def test_any_composition_gives_the_answers_alone(any_layout: CausalModel, seed: int) -> None:
    source = random.Random(seed)
    asked = _asked(source, 30)
    alone = _alone(any_layout, asked)
    assert len({len(ids) for ids in alone}) > 5
    # The cache holds a few of the texts only, so that requests wait for it and what ended makes way.
    batch = _batch(any_layout, answers=source.choice([2, 7]), cache_tokens=700)
    tokens, removed = run_at_random(batch, asked, source)
    for place, expected in enumerate(alone):
        found = tokens[place]
        assert found == (expected[: len(found)] if place in removed else expected), place
    # Once more with what is left of the texts before.
    assert [ids_of(steps) for steps in run_batch(batch, asked)] == alone


def test_steps_tell_the_same_probabilities(model: CausalModel) -> None:
    asked = [(request, SamplingDecoder(_OPTIONS[2])) for request, _ in _asked(random.Random(9), 8)]
    for (request, decoder), together in zip(asked, run_batch(_batch(model), asked), strict=True):
        for step, expected in zip(together, decoder.decode(model, request), strict=True):
            (one,), (other,) = step.logprobs, expected.logprobs
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in one.alternatives] == [token for token, _ in other.alternatives]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lists for each pass how many tokens it read of each text."""
    counts: list[list[int]] = []

    def counted(model: CausalModel, parts: Sequence[Any]) -> list[torch.Tensor]:
        counts.append([len(part.ids) for part in parts])
        return shared_pass(model, parts)

    monkeypatch.setattr("lmflow_transformers.batching.batch.shared_pass", counted)
    return counts


def test_what_prompts_have_in_common_is_read_once(model: CausalModel, passes: list[list[int]]) -> None:
    source = random.Random(3)
    system = [source.randrange(5, 390) for _ in range(100)]
    prompts = [[*system, *(source.randrange(5, 390) for _ in range(5))] for _ in range(6)] + [[*system, 7]] * 4
    decoder = SamplingDecoder(SamplingOptions(temperature=1.0))
    asked = [(DecodingRequest(prompt, 3, seed=seed), decoder) for seed, prompt in enumerate(prompts)]
    batch = _batch(model, pass_tokens=64)
    run_batch(batch, asked)
    read = sum(sum(counts) for counts in passes)
    # The first reads all, the others what is their own; two tokens each are answers that are read again.
    assert 105 + 5 * 5 + 4 + 10 * 2 <= read <= 105 + 5 * 5 + 4 + 10 * 2 + 12
    passes.clear()
    run_batch(batch, asked[:1])
    assert sum(sum(counts) for counts in passes) == 1 + 2  # all of the prompt is there but the token to go on from


def test_a_short_prompt_does_not_wait_for_a_long_one(model: CausalModel, passes: list[list[int]]) -> None:
    batch, decoder = _batch(model, pass_tokens=32), SamplingDecoder()
    batch.add(DecodingRequest(range(10, 310), 4), decoder)
    batch.step()
    short = batch.add(DecodingRequest([5, 6, 7], 40), decoder)
    assert [news.ticket for news in batch.step()] == [short]
    assert passes == [[32], [3]]
    while len(passes) < 12:
        batch.step()
    # The answer gets a token in each pass, beside a part of the long prompt; parts get smaller behind more tokens.
    assert all(len(counts) == 2 and counts[0] == 1 for counts in passes[2:])
    assert sorted((counts[1] for counts in passes[2:]), reverse=True) == [counts[1] for counts in passes[2:]]


def test_short_prompts_do_not_keep_a_long_one_waiting_for_ever(model: CausalModel) -> None:
    batch, decoder = _batch(model, pass_tokens=32, answers=4), SamplingDecoder()
    long = batch.add(DecodingRequest(range(10, 310), 1), decoder)
    for number in range(400):
        batch.add(DecodingRequest([5 + number % 300, 6], 1), decoder)
        if long in {news.ticket for news in batch.step()}:
            return
    pytest.fail("the long prompt was not answered")


def test_requests_wait_for_the_cache_in_their_order(model: CausalModel) -> None:
    batch, decoder = _batch(model, cache_tokens=100), SamplingDecoder()
    large, small = DecodingRequest(range(10, 70), 20), DecodingRequest([5, 6], 5)
    tickets = [batch.add(request, decoder) for request in (large, replace(large, seed=1), small)]
    order = []
    while len(order) < 3:
        order += [news.ticket for news in batch.step() if news.step is None]
    assert order[:1] == tickets[:1]
    assert sorted(order) == tickets


def test_an_answer_that_can_never_fit_is_refused(model: CausalModel) -> None:
    batch, decoder = _batch(model, cache_tokens=100), SamplingDecoder()
    with pytest.raises(RequestError, match=r"prompt of 60 tokens .* up to 41 need a cache of 101 tokens.* holds 100"):
        batch.add(DecodingRequest(range(60), 41), decoder)
    assert batch.step() == []
    batch.add(DecodingRequest(range(60), 40), decoder)
    assert batch.cache_bytes == 100 * 256  # two layers of two heads of eight numbers, keys and values


def test_one_that_fails_does_not_take_the_others_with_it(model: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(SamplingDecoder):
        def chooser(self, model: CausalModel, request: DecodingRequest) -> Any:
            chooser = super().chooser(model, request)
            monkeypatch.setattr(chooser, "choose", lambda *_: 1 / 0)
            return chooser

    batch = _batch(model)
    broken = batch.add(DecodingRequest([5, 6], 5), Broken())
    whole = batch.add(DecodingRequest([5, 6], 5), SamplingDecoder())
    news = [one for _ in range(8) for one in batch.step()]
    assert [type(one.error) for one in news if one.ticket == broken] == [ZeroDivisionError]
    assert (
        ids_of(one.step for one in news if one.ticket == whole and one.step)
        == _alone(model, [(DecodingRequest([5, 6], 5), SamplingDecoder())]).pop()
    )


def test_memory_is_given_back(model: CausalModel) -> None:
    batch = _batch(model, answers=3)
    run_batch(batch, _asked(random.Random(1), 30))
    assert batch._running == []
    assert batch._finished.tokens <= 3 * 230


def test_models_that_do_not_keep_texts_apart_take_turns(tmp_path: Path) -> None:
    from transformers import BloomConfig

    bloom = _made(tmp_path / "bloom", BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4))
    assert SamplingDecoder().open_batch(bloom, BatchLimits()) is None
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    dynamic = _opened(make_tiny_model(tmp_path / "dynamic", rope_parameters=scaled))
    assert SamplingDecoder().open_batch(dynamic, BatchLimits()) is None
