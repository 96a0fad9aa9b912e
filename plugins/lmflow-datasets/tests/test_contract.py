"""What LMFlow asks of every plugin, and of all that this one provides."""

from __future__ import annotations

from lmflow_core.testing.contracts import DatasetContract, PluginContract, SourceContract
from lmflow_datasets import plugin


class TestPlugin(PluginContract):
    name = "datasets"


class TestHub(SourceContract):
    name = "hub"


class TestParquet(SourceContract):
    name = "parquet"


class TestArrow(SourceContract):
    name = "arrow"


for _spec in plugin.lmflow_register_datasets():
    _class = f"Test{_spec.name.title().replace('_', '')}"
    globals()[_class] = type(_class, (DatasetContract,), {"name": _spec.name})
