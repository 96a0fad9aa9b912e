"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lmflow_core.testing.contracts import CommandContract, PluginContract, TunerContract


class TestPlugin(PluginContract):
    name = "vocabulary"


class TestVocab(CommandContract):
    name = "vocab"


class TestEmbeddings(TunerContract):
    name = "embeddings"
    # Rows that train in a model that tells of no extension; the rows of the contract's examples are among them.
    options: ClassVar[Mapping[str, object]] = {"embeddings_from": 8}
