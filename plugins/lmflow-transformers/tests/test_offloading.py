"""Activations that wait elsewhere: same gradients, weights left alone, and refused where it means nothing."""

from __future__ import annotations

import torch

from lmflow_transformers.training.offloading import offloading


def test_gradients_are_the_same_and_only_activations_move() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    inputs = torch.randn(40, 32, requires_grad=True)
    layers(inputs).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in layers.parameters()]  # type: ignore[union-attr]
    layers.zero_grad()
    hooks = offloading(layers.parameters(), torch.device("cpu"))
    away, moved, stayed = hooks.pack_hook, [], []

    def watched(tensor: torch.Tensor) -> tuple[torch.Tensor, bool]:
        packed = away(tensor)
        (moved if packed[1] else stayed).append(tensor)
        assert (packed[0] is tensor) != packed[1]
        return packed

    hooks.pack_hook = watched
    with hooks:
        loss = layers(inputs).square().sum()
    loss.backward()
    for parameter, wanted in zip(layers.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, wanted)
    weights = {parameter.untyped_storage().data_ptr() for parameter in layers.parameters()}
    assert any(tensor is inputs or tensor.shape == inputs.shape for tensor in moved)
    assert any(tensor.shape == (40, 64) for tensor in moved)
    assert not weights & {tensor.untyped_storage().data_ptr() for tensor in moved}
    assert all(tensor.numel() < 1024 or tensor.untyped_storage().data_ptr() in weights for tensor in stayed)
