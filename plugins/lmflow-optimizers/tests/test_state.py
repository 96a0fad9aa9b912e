"""How much state each optimizer keeps. ``python test_state.py`` prints the figures that the README must hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.api import OptimizerSpec, ParameterGroup, TrainingSettings
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement
from lmflow_optimizers.plugin import lmflow_register_optimizers

README = Path(__file__).parents[1] / "README.md"
SPECS = {spec.name: spec for spec in lmflow_register_optimizers()}
ON_CPU = [name for name in SPECS if not name.startswith("paged_")]
SIZE = 1024


def bytes_by_parameter(name: str, parameter: str = "model.layers.0.mlp.up_proj.weight") -> float:
    """Return the bytes of state for each number of a weight of 1024 rows and columns, behind two steps."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(SIZE, SIZE) / 32)
    # A second one, as some split hidden weights from others and refuse when there are none.
    hidden = torch.nn.Parameter(torch.randn(2, 2))
    groups = [ParameterGroup({parameter: weight, "model.layers.1.mlp.up_proj.weight": hidden})]
    target = Catalogue.discover().of(OptimizerSpec).load(name)
    optimizer = target(None).make(groups, TrainingSettings(lr=1e-3))
    for _ in range(2):
        for each in (weight, hidden):
            each.grad = torch.randn_like(each)
        optimizer.step()
    kept: Mapping[str, Any] = optimizer.state[weight]
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for key, value in kept.items()
        if isinstance(value, torch.Tensor) and not key.startswith("qmap")  # one for all parameters
    }
    return sum(storages.values()) / weight.numel()


def told() -> dict[str, str]:
    """Return the figures in the table of the README, by name."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_readme_tells_how_much_state_there_is(name: str) -> None:
    if missing := missing_requirement(SPECS[name]):
        pytest.skip(f"{missing} is not installed")
    assert told()[name] == f"{bytes_by_parameter(name):.2f}"


def test_the_readme_has_a_row_for_each_name() -> None:
    assert set(told()) == set(SPECS)


def test_muon_and_the_projections_keep_what_adamw_keeps_of_embeddings() -> None:
    for name in ("muon", "galore", "apollo"):
        assert f"{bytes_by_parameter(name, 'model.embed_tokens.weight'):.2f}" == "8.00"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for each in ON_CPU:
        print(f"{each:22}{bytes_by_parameter(each):6.2f}")
