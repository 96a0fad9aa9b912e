"""Likelihoods of many texts that begin alike: what they share is read once, and they are those of texts alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen3Config,
)

from lmflow_core.api import IGNORE, EncodedSequence, Score
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers import scoring
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.likelihood import shared_texts
from lmflow_transformers.likelihood.shared_texts import in_common, passes
from lmflow_transformers.scoring import scores

_CONFIGS = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "windows": MistralConfig(**{**TINY_SHAPE, "sliding_window": 5}),
    "capped gemma2": Gemma2Config(**TINY_SHAPE, head_dim=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "recurrent": MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2),
}
_SHOTS = [3 + n % 50 for n in range(30)]
_QUESTIONS = ([*range(20, 40)], [*range(20, 38), 7], [*range(40, 60)])


def _network(name: str) -> Any:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_CONFIGS[name]).eval()
    for parameter in network.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def _asked(context: list[int], answer: list[int]) -> EncodedSequence:
    return EncodedSequence([*context, *answer], [*[IGNORE] * len(context), *answer])


def _few_shot() -> list[EncodedSequence]:
    """Return questions with choices of one token and of several, twice the same, and texts of other kinds."""
    answers = ([5], [6], [5], [7, 8, 9, 10], [7, 8, 11], [5, 6])
    asked = [_asked([*_SHOTS, *question], answer) for question in _QUESTIONS for answer in answers]
    beginning = [*_SHOTS, *_QUESTIONS[0]][:25]
    unasked, whole = EncodedSequence([4, 5, 6], [IGNORE] * 3), EncodedSequence(beginning, beginning)
    gaps = EncodedSequence([*_SHOTS, 9, 9, 9], [*[IGNORE] * 20, *_SHOTS[20:25], *[IGNORE] * 5, 9, IGNORE, IGNORE])
    texts = [*asked, unasked, whole, gaps, EncodedSequence([8], [8]), _asked([61], [62, 63])]
    random.Random(0).shuffle(texts)
    return texts


def _alone(network: Any, text: EncodedSequence) -> tuple[float, int, int]:
    """Return the likelihood of a text by transformers alone."""
    logprobs = network(torch.tensor([text.input_ids]), use_cache=False).logits[0].double().log_softmax(-1)
    places = [at for at, label in enumerate(text.labels[1:]) if label != IGNORE]
    nll = -sum(float(logprobs[at, text.labels[at + 1]]) for at in places)
    return nll, len(places), sum(int(logprobs[at].argmax()) == text.labels[at + 1] for at in places)


def _scored(network: Any, texts: list[EncodedSequence]) -> list[Score]:
    return list(scores(network, iter(texts), SdpaAttention().implementation("cpu"), None))


@pytest.mark.parametrize("plain_head", [True, False])
@pytest.mark.parametrize("name", [*_CONFIGS])
def test_likelihoods_are_those_of_texts_alone(name: str, plain_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network, texts = _network(name), _few_shot()
    if not plain_head:
        monkeypatch.setattr(scoring, "head_is_plain", lambda _: False)
    with torch.no_grad():
        wanted = [_alone(network, text) for text in texts]
    found = _scored(network, texts)
    assert [score.nll for score in found] == pytest.approx([nll for nll, _, _ in wanted], abs=1e-4)
    assert [(score.tokens, score.correct) for score in found] == [tuple(rest) for _, *rest in wanted]


def test_what_texts_have_in_common_is_read_once() -> None:
    network, read = _network("llama"), []
    _scored(network, _few_shot())  # the attention is tried at the first use
    hook = network.base_model.register_forward_pre_hook(
        lambda _, __, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    answers = ([5], [6], [5], [7, 8, 9, 10], [7, 8, 11], [5, 6])
    _scored(network, [_asked([*_SHOTS, *question], answer) for question in _QUESTIONS for answer in answers])
    hook.remove()
    # Shots and questions (the second goes on from the first behind 18 of its tokens); of each question 7, 8, 9 and
    # 5, as what stands behind the last token that predicts is not read.
    assert read == [30 + 20 + 1 + 20 + 3 * 4]


@pytest.mark.parametrize("limit", [50, 10**6])
def test_texts_lie_in_passes_token_by_token(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_texts, "_PASS_TOKENS", limit)
    monkeypatch.setattr(shared_texts, "_LONGEST_PASS", limit)
    chance = random.Random(1)
    texts = [[chance.choice("ab") for _ in range(chance.randint(1, 40))] for _ in range(60)]
    texts += [text[: chance.randint(1, len(text))] + texts[0][:5] for text in texts]
    coded = [[ord(letter) for letter in text] for text in texts]
    seen = []
    for numbers, laid in passes(coded):
        seen += numbers
        assert len(laid.ids) <= limit
        inputs = laid.inputs()
        for at, number in enumerate(numbers):
            rows = [*laid.rows(at, range(len(coded[number])))]
            assert [laid.ids[row] for row in rows] == coded[number]
            assert inputs["position_ids"][0, rows].tolist() == [*range(len(rows))]
        assert inputs["cu_seq_lens_q"].diff().min() > 0
    assert sorted(seen) == [*range(len(texts))]


def test_windows_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    network, texts = _network("llama"), _few_shot()
    wanted = [score.nll for score in _scored(network, texts)]
    monkeypatch.setattr(scoring, "_NEW_IN_WINDOW", 60)
    assert [score.nll for score in _scored(network, texts)] == pytest.approx(wanted, abs=1e-5)


def test_common_beginnings_are_counted() -> None:
    chance = random.Random(2)
    for _ in range(200):
        one, other = ([chance.randint(0, 1) for _ in range(chance.randint(0, 9))] for _ in range(2))
        plain = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        assert in_common(one, other) == (min(len(one), len(other)) if plain is None else plain)


def test_passes_are_longer_where_much_is_shared() -> None:
    apart = [[number] * 100 for number in range(60)]
    behind = [[*[99] * 1000, *text] for text in apart]
    assert [len(laid.ids) for _, laid in passes(apart)] == [2000, 2000, 2000]
    assert [len(laid.ids) for _, laid in passes(behind)] == [1000 + 60 * 100]
