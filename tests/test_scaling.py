"""Position scaling as the core sees it: which scheme, how far, and for what model. The schemes are made up here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import ModelSettings, OptionError, RequestError
from lmflow_core.models.position_scaling import scaled_positions
from lmflow_core.options import build
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.registry import Catalogue

_SCHEMES = """
from dataclasses import dataclass
from lmflow_core.api import PositionScalingSpec, hookimpl, option

@dataclass(frozen=True, kw_only=True)
class Options:
    stretch_how: str = option("gently", help="How.")

def stretch(rope, factor, options):
    return rope

@hookimpl
def lmflow_register_position_scalings():
    target = "fake_lmflow_stretch:stretch"
    return [PositionScalingSpec(name="stretch", target=target, summary="Stretches.", options=Options)]
"""


@dataclass
class _Model:
    reference: str = "m"
    context_length: int | None = 100


@pytest.fixture
def catalogue(install_plugin: Callable[..., importlib.metadata.EntryPoint]) -> Catalogue:
    return Catalogue(load_plugins(PluginPolicy(), [install_plugin("stretch", _SCHEMES)]))


def _scaled(model: Any, catalogue: Catalogue, **settings: Any) -> Any:
    return scaled_positions(model, build(ModelSettings, {"model": "m", **settings}), None, None, catalogue)


def test_the_factor_is_given_or_follows_from_the_target(catalogue: Catalogue) -> None:
    found = _scaled(_Model(), catalogue, position_scaling="stretch", position_scaling_factor=2)
    assert (found.name, found.scheme.__name__, found.factor) == ("stretch", "stretch", 2.0)
    assert found.options.stretch_how == "gently"
    assert _scaled(_Model(), catalogue, position_scaling="stretch", target_length=250).factor == 2.5
    assert _scaled(_Model(), catalogue) is None


def test_what_cannot_be_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(RequestError, match="--target-length 99: the model reaches 100 tokens without scaling"):
        _scaled(_Model(), catalogue, position_scaling="stretch", target_length=99)
    with pytest.raises(RequestError, match="m does not tell its length; use --position-scaling-factor"):
        _scaled(_Model(context_length=None), catalogue, position_scaling="stretch", target_length=99)
    with pytest.raises(OptionError, match="needs one of --position-scaling-factor and --target-length"):
        _scaled(_Model(), catalogue, position_scaling="stretch", position_scaling_factor=2, target_length=200)


def test_an_adapter_without_a_record_is_not_scaled(catalogue: Catalogue, tmp_path: Path) -> None:
    for record in (None, "{", "[]", '{"options": {"model": "m"}}', '{"options": {"position_scaling": null}}'):
        if record is not None:
            (tmp_path / "run.json").write_text(record)
        model: Any = _Model()
        assert scaled_positions(model, build(ModelSettings, {"model": "m"}), None, tmp_path, catalogue) is None
