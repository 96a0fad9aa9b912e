"""The chunked label-only loss against plain cross-entropy."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
)

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence
from lmflow_core.testing.jobs import single
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.attention import SdpaAttention, using_attention
from lmflow_transformers.batches import collate
from lmflow_transformers.likelihood import cross_entropy
from lmflow_transformers.likelihood.cross_entropy import chunked_cross_entropy, token_scores
from lmflow_transformers.likelihood.head import Head, head_is_plain
from lmflow_transformers.likelihood.logprobs import token_logprobs
from lmflow_transformers.likelihood.network import sequence_logprobs, summed_cross_entropy

_SHAPE: dict[str, Any] = {**TINY_SHAPE, "num_hidden_layers": 1}
_NETWORKS = {
    "tied llama": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "untied llama": LlamaConfig(**_SHAPE, tie_word_embeddings=False),
    "capped gemma2": Gemma2Config(**_SHAPE, head_dim=8, final_logit_softcapping=2.0),
    "scaled granite": GraniteConfig(**_SHAPE, logits_scaling=3.0),
    "scaled cohere": CohereConfig(**_SHAPE, logit_scale=0.25),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4),
}


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients_equal_plain_cross_entropy(chunk: int, softcap: float | None, bias: bool) -> None:
    torch.manual_seed(0)
    values = [torch.randn(7, 8), torch.randn(11, 8), torch.randn(11)]
    targets = torch.randint(0, 11, (7,))
    plain = [value.clone().requires_grad_() for value in values]
    logits = plain[0] @ plain[1].T * 0.5 + (plain[2] * 0.5 if bias else 0.0)
    capped = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = torch.nn.functional.cross_entropy(capped, targets, reduction="sum") * 0.25
    expected.backward()

    ours = [value.clone().requires_grad_() for value in values]
    head = Head(ours[1], ours[2] if bias else None, scale=0.5, softcap=softcap)
    ours_loss = chunked_cross_entropy(ours[0], targets, head, chunk) * 0.25
    ours_loss.backward()
    torch.testing.assert_close(ours_loss, expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(ours[: 3 if bias else 2], plain, strict=False):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_a_loss_is_differentiated_once() -> None:
    hidden = torch.randn(3, 8, requires_grad=True)
    total = chunked_cross_entropy(hidden, torch.tensor([0, 1, 2]), Head(torch.randn(11, 8), None), 2)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="this loss has been differentiated already: compute it again"):
        total.backward()


def test_no_gradient_is_computed_where_none_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(cross_entropy.HeadGradients, "add", refuse)
    head = Head(torch.nn.Parameter(torch.randn(11, 8)), torch.nn.Parameter(torch.randn(11)))
    hidden, targets = torch.randn(3, 8), torch.tensor([0, 1, 2])
    with torch.no_grad():
        total = chunked_cross_entropy(hidden, targets, head, 2)
        plain = torch.nn.functional.cross_entropy(hidden @ head.weight.T + head.bias, targets, reduction="sum")
    torch.testing.assert_close(total, plain)


def test_token_scores_equal_plain_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 8), torch.randn(11, 8), torch.randint(0, 11, (9,))
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    nll, right = token_scores(hidden, torch.arange(len(targets)), targets, Head(weight, None), 4)
    torch.testing.assert_close(nll, expected)
    assert torch.equal(right, (hidden @ weight.T).argmax(-1) == targets)


@pytest.mark.parametrize("name", _NETWORKS)
def test_a_networks_label_only_loss_equals_its_own(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_NETWORKS[name])
    network.eval()
    assert head_is_plain(network)
    ids = torch.randint(1, 64, (1, 12))
    labels = ids.clone()
    labels[0, :5] = IGNORE
    expected = network(input_ids=ids, labels=labels).loss
    expected.backward()
    theirs = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    batch = collate([single(ids[0].tolist(), labels[0].tolist())], isolated=False)
    loss = summed_cross_entropy(network, batch, chunk=3) / batch.labelled.sum()
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert theirs.keys() == {n for n, p in network.named_parameters() if p.grad is not None}
    for parameter_name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, theirs[parameter_name], atol=1e-5, rtol=1e-4)


def test_a_head_that_config_does_not_tell_falls_back_to_the_networks_logits() -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_NETWORKS["tied llama"]).eval()
    own = network.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        output.logits = output.logits * 2
        return output

    network.forward = doubled
    assert not head_is_plain(network)
    ids = torch.randint(1, 64, (1, 6))
    batch = collate([single(ids[0].tolist())], isolated=False)
    with torch.no_grad():
        logits = network(input_ids=ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        torch.testing.assert_close(summed_cross_entropy(network, batch, chunk=3), expected)
        torch.testing.assert_close(sequence_logprobs(network, batch), -expected[None])


class _LikeLiger:
    """Liger's loss as its signature has it, in plain torch."""

    def __init__(self, reduction: str, softcap: float | None) -> None:
        self._reduction, self._softcap = reduction, softcap

    def __call__(self, weight: torch.Tensor, hidden: torch.Tensor, target: torch.Tensor, bias: Any) -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, weight, bias)
        logits = logits if self._softcap is None else self._softcap * torch.tanh(logits / self._softcap)
        return torch.nn.functional.cross_entropy(logits, target, reduction=self._reduction)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_liger_is_asked_for_the_same_loss(softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(7, 8), torch.randn(11, 8), torch.randint(0, 11, (7,))
    head = Head(weight, None, scale=0.5, softcap=softcap)
    kernels = types.ModuleType("liger_kernel.transformers")
    kernels.LigerFusedLinearCrossEntropyLoss = _LikeLiger  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", kernels)
    monkeypatch.setattr(cross_entropy, "_liger_serves", lambda hidden, head: True)
    expected = chunked_cross_entropy(hidden, targets, head, 3)
    torch.testing.assert_close(
        cross_entropy.fused_cross_entropy(hidden, targets, head, 3), expected, atol=1e-5, rtol=1e-5
    )


def test_on_a_cpu_liger_is_not_asked() -> None:
    assert not cross_entropy._liger_serves(torch.randn(7, 8), Head(torch.randn(11, 8), None))


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize(("softcap", "bias"), [(None, False), (1.5, True)])
@pytest.mark.parametrize("frozen", [False, True])
def test_log_probabilities_and_gradients_equal_those_of_plain_logits(
    chunk: int, softcap: float | None, bias: bool, frozen: bool
) -> None:
    torch.manual_seed(0)
    values = [torch.randn(7, 8), torch.randn(11, 8), torch.randn(11)]
    targets, weights = torch.randint(0, 11, (7,)), torch.randn(7)
    learned = [True, not frozen, not frozen]
    plain, ours = (
        [value.clone().requires_grad_(wanted) for value, wanted in zip(values, learned, strict=True)] for _ in range(2)
    )
    heads = [Head(each[1], each[2] if bias else None, scale=0.5, softcap=softcap) for each in (plain, ours)]
    expected = heads[0].logits(plain[0]).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    found = token_logprobs(ours[0], targets, heads[1], chunk)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for each in (expected, found):
        (each * weights).sum().backward()
    for mine, theirs, wanted in zip(ours[: 3 if bias else 2], plain, learned, strict=False):
        assert (mine.grad is not None) is wanted
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("name", ["tied llama", "capped gemma2"])
def test_sequences_of_a_packed_batch_are_as_likely_as_each_alone(name: str, isolated: bool) -> None:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_NETWORKS[name]).eval()
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 64, (length,), generator=generator).tolist() for length in (9, 5, 2, 7)]
    sequences = [EncodedSequence(each, [IGNORE, IGNORE, *each[2:]]) for each in ids]
    examples = [EncodedExample(tuple(sequences[:2])), EncodedExample(tuple(sequences[2:]))]
    expected = []
    for each in ids:
        logprobs = network(torch.tensor([each])).logits[0, :-1].log_softmax(-1)
        expected.append(logprobs.gather(1, torch.tensor(each[1:])[:, None])[1:].sum())
    attention = SdpaAttention().implementation("cpu") if isolated else network.config._attn_implementation
    with using_attention(network, attention):
        found = sequence_logprobs(network, collate(examples, isolated=isolated), chunk=3)
        upstream = torch.tensor([1.0, -2.0, 3.0, 0.5])
        ours = torch.autograd.grad((found * upstream).sum(), list(network.parameters()), allow_unused=True)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    theirs = torch.autograd.grad(
        (torch.stack(expected) * upstream).sum(), list(network.parameters()), allow_unused=True
    )
    for mine, other in zip(ours, theirs, strict=True):
        if mine is not None or other is not None:
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("learned", [True, False])
def test_under_autocast_weights_stay_as_they_are_and_gradients_are_near(learned: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(9, 16, requires_grad=True)
    weight = torch.randn(11, 16, requires_grad=learned)
    targets = torch.randint(0, 11, (9,))
    wanted = [hidden, weight] if learned else [hidden]

    def both() -> list[torch.Tensor]:
        head = Head(weight, None)
        return [chunked_cross_entropy(hidden, targets, head, 4), token_logprobs(hidden, targets, head, 4).sum()]

    whole = [torch.autograd.grad(loss, wanted) for loss in both()]
    with torch.autocast("cpu", torch.bfloat16):
        losses = both()
    for loss, exact in zip(losses, whole, strict=True):
        for ours, theirs in zip(torch.autograd.grad(loss, wanted), exact, strict=True):
            assert ours.dtype == torch.float32
            assert float((ours - theirs).norm() / theirs.norm()) < 2e-2
