"""Groups that are frozen for now, where an optimizer updates pieces of rows in the place of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lmflow_core.api import LmflowError
from lmflow_transformers.training.freezing import FrozenGroups


@pytest.fixture
def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.full((4,), value)) for value in (1.0, 2.0, 3.0)]


def _in_rows(parameters: list[torch.nn.Parameter]) -> tuple[Any, FrozenGroups, list[torch.Tensor]]:
    """Return an AdamW of two groups, with rows in the place of their parameters as ZeRO puts them."""
    groups = [{"params": parameters[:1]}, {"params": parameters[1:]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    frozen = FrozenGroups(optimizer)
    rows = [torch.cat([p.detach() for p in group["params"]]).requires_grad_() for group in groups]
    for group, row in zip(optimizer.param_groups, rows, strict=True):
        group["params"] = [row]
    return optimizer, frozen, rows


def _step(optimizer: Any, frozen: FrozenGroups, rows: list[torch.Tensor]) -> None:
    frozen.on_step_begin(None, None, None)
    for row in rows:
        row.grad = torch.ones_like(row)
    optimizer.step()


def test_a_frozen_group_neither_moves_nor_decays_nor_keeps_state(parameters: list[torch.nn.Parameter]) -> None:
    optimizer, frozen, rows = _in_rows(parameters)
    _step(optimizer, frozen, rows)
    assert set(optimizer.state) == set(rows)
    moved = rows[1].detach().clone()
    assert not torch.equal(moved, torch.tensor([2.0] * 4 + [3.0] * 4))
    for parameter in parameters[1:]:
        parameter.requires_grad_(False)
    frozen.on_step_begin(None, None, None)
    assert set(optimizer.state) == {rows[0]}
    before = rows[0].detach().clone()
    _step(optimizer, frozen, rows)
    assert torch.equal(rows[1], moved)
    assert not torch.equal(rows[0], before)
    assert set(optimizer.state) == {rows[0]}
    # Who accumulates into the row's gradient finds it where it was.
    assert rows[1].grad is not None


def test_a_group_that_thaws_begins_anew(parameters: list[torch.nn.Parameter]) -> None:
    optimizer, frozen, rows = _in_rows(parameters)
    _step(optimizer, frozen, rows)
    for trains in (False, True):
        for parameter in parameters[1:]:
            parameter.requires_grad_(trains)
        _step(optimizer, frozen, rows)
    assert [int(optimizer.state[row]["step"]) for row in rows] == [3, 1]


def test_a_group_that_is_frozen_in_part_is_refused(parameters: list[torch.nn.Parameter]) -> None:
    optimizer, frozen, rows = _in_rows(parameters)
    parameters[2].requires_grad_(False)
    with pytest.raises(LmflowError, match="freezes a part of a group"):
        _step(optimizer, frozen, rows)
