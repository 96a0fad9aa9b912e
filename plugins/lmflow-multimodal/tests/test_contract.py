"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmflow_core.testing.contracts import CommandContract, ModelContract, PluginContract


class TestPlugin(PluginContract):
    name = "multimodal"


class TestImageText(ModelContract):
    name = "image-text"
    reference = "{seeing}"

    @pytest.fixture(scope="class")
    @classmethod
    def seeing(cls, seeing_model: Callable[[str], Path]) -> Path:
        """Return the folder of a model that sees."""
        return seeing_model("llava")


class TestVlm(CommandContract):
    name = "vlm"
