"""What an engine that spreads optimizer state cannot do is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmflow_core.api import RequestError
from lmflow_transformers.training.optimizers import check_elementwise
from lmflow_transformers.training.resuming import _check_processes


class _Whole(torch.optim.AdamW):
    """Looks at whole matrices."""


class _Elementwise(torch.optim.AdamW):
    elementwise = True


@pytest.fixture
def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(2, 2))]


def test_only_optimizers_that_treat_each_number_alike_are_taken(weights: list[torch.nn.Parameter]) -> None:
    check_elementwise(torch.optim.AdamW(weights), False)
    check_elementwise(_Elementwise(weights), False)
    with pytest.raises(RequestError, match="the optimizer _Whole needs whole weights"):
        check_elementwise(_Whole(weights), False)
    with pytest.raises(RequestError, match="the optimizer AdamW needs whole weights"):
        check_elementwise(torch.optim.AdamW(weights), True)


def test_another_number_of_processes_is_refused() -> None:
    kept = {"fixed": {"the number of processes": 2}}
    _check_processes(kept, Path("checkpoint-6"), 2)
    with pytest.raises(RequestError, match=r"checkpoint-6 was written by 2 processes, .* job has 4: start 2"):
        _check_processes(kept, Path("checkpoint-6"), 4)
