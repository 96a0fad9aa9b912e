"""Pictures, and tiny models of each family."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmflow_core.testing.seeing import make_seeing_model

_SIZES = ((20, 30), (40, 16), (9, 9))


@pytest.fixture(scope="session")
def other_plugins() -> None:
    """Leave out a test where rows, templates and tuners are not installed, which a plugin's tests alone need not be."""
    for needed in ("lmflow_datasets", "lmflow_templates", "lmflow_lora", "lmflow_lisa", "lmflow_preference"):
        pytest.importorskip(needed, reason="rows, templates, tuners and dpo come from other plugins")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return paths of three pictures of different shapes."""
    folder, noise = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [str(folder / f"{number}.png") for number in range(len(_SIZES))]
    for path, (height, width) in zip(paths, _SIZES, strict=True):
        Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="session")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a tiny model of a family."""
    folder = tmp_path_factory.mktemp("seeing")
    return cache(lambda family: make_seeing_model(folder / family, family))
