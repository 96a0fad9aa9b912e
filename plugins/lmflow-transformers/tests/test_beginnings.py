"""Sequences that begin alike: computed once, with the logits and gradients of sequences that stand alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, Media, TrainingSettings
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers import beginnings
from lmflow_transformers.attention import (
    AttentionInputs,
    SdpaAttention,
    packed_attention,
    register_attention,
    using_attention,
)
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.isolation import shares_beginnings
from lmflow_transformers.likelihood.network import hidden_states, sequence_logprobs
from lmflow_transformers.training.loss import LossOutput
from lmflow_transformers.training.run import train

_SHARING = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "windows": MistralConfig(**{**TINY_SHAPE, "sliding_window": 5}),
    "capped gemma2": Gemma2Config(**TINY_SHAPE, head_dim=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "opt": OPTConfig(vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4),
}
_PROMPT = [5 + n for n in range(20)]


def _answered(prompt: list[int], *answers: list[int]) -> EncodedExample:
    unlabelled = [IGNORE] * len(prompt)
    return EncodedExample(tuple(EncodedSequence([*prompt, *ids], [*unlabelled, *ids]) for ids in answers))


_EXAMPLES = [
    single([30, 31, 32]),
    _answered(_PROMPT, [40, 41, 42, 3], [43, 44, 3], [40, 45, 3]),
    _answered(_PROMPT[:17], [50], [51, 52, 53]),
]


def _network(config: Any) -> Any:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def _learned(network: Any, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the log-probability of each sequence, and the gradients of a loss that weighs each differently."""
    logprobs = sequence_logprobs(network, batch)
    weights = torch.linspace(-1, 1, len(logprobs))
    parameters = [p for p in network.parameters() if p.requires_grad]
    return logprobs, list(torch.autograd.grad((logprobs * weights).sum(), parameters, allow_unused=True))


@pytest.mark.parametrize("name", [*_SHARING])
def test_log_probabilities_and_gradients_are_those_of_whole_sequences(name: str) -> None:
    network, attention = _network(_SHARING[name]), SdpaAttention().implementation("cpu")
    assert shares_beginnings(network, attention)
    with using_attention(network, "eager"):
        wanted, gradients = _learned(network, collate(_EXAMPLES, isolated=False))
    with using_attention(network, attention):
        batch = collate(_EXAMPLES, shared=True)
        found, others = _learned(network, batch)
    assert len(batch.targets) == 3 + (24 + 4 + 4) + (18 + 4)
    assert batch.tokens == sum(example.tokens for example in _EXAMPLES)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(others, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_hidden_states_of_answers_are_those_of_whole_sequences() -> None:
    network = _network(_SHARING["llama"])
    with using_attention(network, SdpaAttention().implementation("cpu")), torch.no_grad():
        shared, apart = (collate(_EXAMPLES[1:2], shared=each) for each in (True, False))
        found, wanted = hidden_states(network, shared), hidden_states(network, apart)
    # The prompt's last token predicts the answer and is computed for each.
    kept = torch.cat([torch.arange(24), torch.arange(24 + 19, 24 + 23), torch.arange(24 + 23 + 19, 24 + 23 + 23)])
    torch.testing.assert_close(found, wanted[kept], atol=1e-5, rtol=1e-5)


def test_where_sequences_and_their_beginnings_lie() -> None:
    batch = collate(_EXAMPLES, shared=True)
    (inputs,) = batch.inputs
    assert inputs["shared_beginnings"].tolist() == [[0, 0], [0, 0], [3, 19], [3, 19], [0, 0], [35, 16]]
    assert batch.ends.tolist() == [0, 3, 27, 31, 35, 53, 57]
    assert batch.groups.tolist() == [0, 1, 4, 6]
    assert inputs["position_ids"][0, 27:31].tolist() == [19, 20, 21, 22]
    assert inputs["input_ids"][0, 27:31].tolist() == [24, 43, 44, 3]
    assert batch.targets[27:31].tolist() == [43, 44, 3, IGNORE]
    assert batch.labels_per_sequence.tolist() == [2, 4, 3, 3, 1, 3]


def _shared_tokens(example: EncodedExample) -> list[int]:
    return [part.start for part in beginnings.parts_of([example])]


def test_what_is_learned_or_seen_is_not_shared() -> None:
    learned = EncodedExample(tuple(EncodedSequence(ids, ids) for ids in ([*_PROMPT, 40], [*_PROMPT, 41])))
    image = Media("a.png", "d", start=1, tokens=2)
    seen = EncodedExample(tuple(EncodedSequence(s.input_ids, s.labels, (image,)) for s in _EXAMPLES[1].sequences))
    assert _shared_tokens(learned) == [0, 0]
    assert _shared_tokens(seen) == [0, 0, 0]
    assert _shared_tokens(_answered(_PROMPT[:10], [40], [41])) == [0, 0]  # too short to pay
    alike = EncodedExample((EncodedSequence(_PROMPT, [IGNORE] * 20), EncodedSequence(_PROMPT, [IGNORE] * 20)))
    assert _shared_tokens(alike) == [0, 19]  # a sequence keeps a token of its own


def test_an_attention_that_does_not_look_at_beginnings_is_found() -> None:
    import dataclasses

    def forgetful(inputs: AttentionInputs) -> torch.Tensor:
        return packed_attention(dataclasses.replace(inputs, beginnings=None))

    network = _network(_SHARING["llama"]).train()
    assert not shares_beginnings(network, register_attention("lmflow_forgetful", forgetful))
    assert network.training


class _Ranking:
    """The first sequence of an example is to be the likeliest."""

    unit = "examples"

    def __init__(self) -> None:
        self.positions = 0

    def units(self, batch: Batch) -> int:
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        self.positions += len(batch.targets)
        best, *others = sequence_logprobs(network, batch).view(-1, 3).unbind(1)
        return LossOutput((torch.stack(others).logsumexp(0) - best).sum())


def test_training_shares_beginnings_and_ends_with_the_same_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(lr=1e-2, batch_size=2, epochs=2, max_grad_norm=0.0, warmup_ratio=0.0, logging_steps=1)
    data = [_answered(_PROMPT, [40 + n, 3], [44, n + 3], [48, 49, 3]) for n in range(2)]
    weights, tokens, positions = [], [], []
    for name, shortest in (("shared", beginnings.SHORTEST), ("apart", 1000)):
        monkeypatch.setattr(beginnings, "SHORTEST", shortest)
        job = make_job(tiny_model, tmp_path / name, settings, data)
        loss = _Ranking()
        tokens.append(train(job, loss).tokens)
        positions.append(loss.positions)
        weights.append(job.model.network.state_dict())
    assert tokens[0] == tokens[1] == 2 * sum(example.tokens for example in data)
    assert positions == [tokens[0] - 2 * 2 * 2 * 19, tokens[0]]
    for key, ours in weights[0].items():
        torch.testing.assert_close(ours, weights[1][key], atol=2e-4, rtol=1e-3)
