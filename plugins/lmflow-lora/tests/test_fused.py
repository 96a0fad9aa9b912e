"""The fused layer: peft's own results and gradients, and peft's own layer wherever it is not a plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora

from lmflow_lora import fused
from lmflow_lora.fused import FusedLinear, fuse_adapters


class _Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the layers that were computed as one."""
    calls: list[int] = []
    apply = fused._Fused.apply
    monkeypatch.setattr(fused._Fused, "apply", lambda *inputs: calls.append(1) or apply(*inputs))
    return calls


def _adapted(**options: object) -> tuple[PeftModel, PeftModel]:
    """Return a network with adapters that are not zero, as peft has it and fused."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 2, "lora_alpha": 3, "target_modules": ["first", "second"], **options})
    plain = get_peft_model(_Network(), config)
    for name, parameter in plain.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ours = copy.deepcopy(plain)
    fuse_adapters(ours)
    return plain, ours


def _gradients(network: PeftModel, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    torch.manual_seed(7)  # what dropout leaves out
    result = network(x)
    network.zero_grad()
    (result**2).sum().backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [result.detach(), *(value.grad.clone() for value in (x, *trained) if value.grad is not None)]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6)])
def test_results_and_gradients_equal_those_of_peft(dropout: float, shape: tuple[int, ...], counted: list[int]) -> None:
    plain, ours = _adapted(lora_dropout=dropout)
    x = torch.randn(shape)
    expected, found = _gradients(plain.train(), x), _gradients(ours.train(), x)
    assert len(counted) == 2
    assert len(found) == 6
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_in_half_precision_they_are_those_of_peft_but_for_rounding(counted: list[int]) -> None:
    _, ours = _adapted()
    for name, parameter in ours.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
        else:
            parameter.data = parameter.data.bfloat16().float()
    exact = copy.deepcopy(ours).float()
    x = torch.randn(4, 6).bfloat16()
    found, expected = _gradients(ours, x), _gradients(exact, x.float())
    assert len(counted) == 4
    assert [value.dtype for value in found] == [torch.bfloat16] * 2 + [torch.float32] * 4
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=0.03 * float(theirs.abs().max()), rtol=0)


def test_an_input_without_a_gradient_needs_none() -> None:
    plain, ours = _adapted()
    x = torch.randn(4, 6)
    for network in (plain, ours):
        network(x).sum().backward()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_not_plain_is_left_to_peft(options: dict[str, object], counted: list[int]) -> None:
    plain, ours = _adapted(**options)
    x = torch.randn(4, 6)
    for mine, theirs in zip(_gradients(ours, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not counted


def test_without_gradients_under_autocast_disabled_or_merged_it_is_peft(counted: list[int]) -> None:
    plain, ours = _adapted()
    x = torch.randn(4, 6)
    with torch.no_grad():
        assert torch.equal(ours(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), plain(x))
    with ours.disable_adapter(), plain.disable_adapter():
        assert torch.equal(ours(x), plain(x))
    merged = ours.merge_and_unload()
    torch.testing.assert_close(merged(x), plain(x))
    assert not counted
    assert not any(isinstance(module, lora.Linear) for module in merged.modules())


def test_every_plain_layer_is_fused() -> None:
    _, ours = _adapted()
    assert sum(isinstance(module, FusedLinear) for module in ours.modules()) == 2
