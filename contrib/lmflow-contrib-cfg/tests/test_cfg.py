"""Guided answers against transformers' own guidance, alone and in a batch, and against plain sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_contrib_cfg.decoder import GuidedDecoder
from lmflow_contrib_cfg.options import GuidanceOptions
from lmflow_core.api import BatchLimits, DecodeStep, DecodingRequest, ModelSettings, RequestError
from lmflow_core.testing.batches import ids_of, run_batch
from lmflow_core.testing.tiny import make_tiny_model
from lmflow_transformers.api import CausalModel, CausalModelLoader, SamplingDecoder, SamplingOptions

PROMPT, NEGATIVE = [1, 40, 41, 42, 43], "the quick brown<|im_end|>"
TOKENS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers depend on the prompt: large weights."""
    return make_tiny_model(tmp_path_factory.mktemp("guided") / "m", initializer_range=0.3)


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    opened = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    opened.load()
    return opened


def _decoded(model: CausalModel, *, seed: int = 0, prompt: Sequence[int] = PROMPT, **options: Any) -> list[DecodeStep]:
    request = DecodingRequest(prompt, TOKENS, seed=seed)
    return [*GuidedDecoder(GuidanceOptions(**options)).decode(model, request)]


def _transformers(
    folder: Path, scale: float, negative: list[int] | None, seed: int | None, **options: Any
) -> list[int]:
    """What ``generate`` writes, whose guidance comes before all else that acts on logits."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    network.generation_config.eos_token_id = None
    options["do_sample"] = seed is not None
    if seed is not None:
        torch.manual_seed(seed)
        options["top_k"] = 0
    ids = torch.tensor([PROMPT])
    written = network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=TOKENS,
        guidance_scale=scale,
        negative_prompt_ids=None if negative is None else torch.tensor([negative]),
        **options,
    )
    answer: list[int] = written[0, len(PROMPT) :].tolist()
    return answer


def _ids(model: CausalModel, text: str) -> list[int]:
    ids: list[int] = model.tokenizer.inner(text).input_ids
    return ids


@pytest.mark.parametrize("negative", [None, NEGATIVE])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 3.0])
def test_greedy_answers_are_transformers(scale: float, negative: str | None, model: CausalModel, folder: Path) -> None:
    steps = _decoded(model, guidance_scale=scale, negative_prompt=negative)
    other = None if negative is None else _ids(model, negative)
    assert ids_of(steps) == _transformers(folder, scale, other, None)
    assert [step.passes for step in steps] == [2] * TOKENS
    assert ids_of(steps) != ids_of(_decoded(model, guidance_scale=1.0))


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_seeds_give_what_they_give_in_transformers(
    negative: str | None, seed: int, model: CausalModel, folder: Path
) -> None:
    options = {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.2}
    ours = ids_of(_decoded(model, seed=seed, guidance_scale=2.0, negative_prompt=negative, **options))
    other = None if negative is None else _ids(model, negative)
    assert ours == _transformers(folder, 2.0, other, seed, **options)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "logprobs": 2}, {"temperature": 0.7, "top_k": 20}])
def test_at_scale_one_it_is_plain_sampling(options: dict[str, Any], model: CausalModel) -> None:
    plain = [*SamplingDecoder(SamplingOptions(**options)).decode(model, DecodingRequest(PROMPT, TOKENS, seed=3))]
    assert _decoded(model, seed=3, guidance_scale=1.0, negative_prompt=NEGATIVE, **options) == plain


def test_logprobs_are_those_of_the_model_itself(model: CausalModel, folder: Path) -> None:
    steps = _decoded(model, guidance_scale=3.0, negative_prompt=NEGATIVE, logprobs=3)
    ids = ids_of(steps)
    network = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logprobs = network(torch.tensor([[*PROMPT, *ids]])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    told = [step.logprobs[0] for step in steps]
    expected = logprobs.gather(1, torch.tensor(ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor([one.logprob for one in told]), expected, atol=1e-4, rtol=1e-4)
    assert [one.alternatives[0][0] for one in told] == logprobs.argmax(-1).tolist()
    assert any(token != one.alternatives[0][0] for token, one in zip(ids, told, strict=True))


def test_a_batch_gives_what_each_answer_is_alone(model: CausalModel) -> None:
    asked, alone = [], []
    for number in range(7):
        options = GuidanceOptions(
            guidance_scale=(1.0, 2.0, 3.0)[number % 3],
            negative_prompt=NEGATIVE if number % 2 else None,
            temperature=0.9 if number > 3 else 0.0,
            logprobs=1,
        )
        request = DecodingRequest([*PROMPT, *range(50, 50 + 3 * number)], TOKENS, seed=number)
        asked.append((request, GuidedDecoder(options)))
        alone.append(ids_of(GuidedDecoder(options).decode(model, request)))
    batch = asked[0][1].open_batch(model, BatchLimits(answers=3))
    assert batch is not None
    assert [ids_of(steps) for steps in run_batch(batch, asked)] == alone


def test_a_batch_counts_the_memory_of_both_texts(model: CausalModel) -> None:
    decoder = GuidedDecoder(GuidanceOptions(negative_prompt=NEGATIVE))
    needed = 2 * (len(PROMPT) + TOKENS) + len(_ids(model, NEGATIVE))
    request = DecodingRequest(PROMPT, TOKENS)
    for room, fits in ((needed, True), (needed - 1, False)):
        batch = decoder.open_batch(model, BatchLimits(cache_tokens=room))
        assert batch is not None
        if fits:
            batch.check(request, decoder)
        else:
            with pytest.raises(RequestError):
                batch.check(request, decoder)


def test_a_negative_prompt_that_leaves_no_room_is_told(model: CausalModel) -> None:
    with pytest.raises(
        RequestError, match=r"^--negative-prompt has \d+ tokens, and with 24 of the answer does not fit"
    ):
        _decoded(model, guidance_scale=2.0, negative_prompt="dog " * 300)


def test_the_command_answers_with_it(lmflow_cli: Callable[..., Any], folder: Path) -> None:
    flags = ("--model", folder, "--prompt", "hello", "--max-new-tokens", 12)
    plain, guided, one = (
        lmflow_cli("generate", *flags, *more)
        for more in ((), ("--decoder", "cfg"), ("--decoder", "cfg", "--guidance-scale", 1))
    )
    assert plain.status == guided.status == one.status == 0, guided.stderr
    assert guided.stdout != plain.stdout == one.stdout
