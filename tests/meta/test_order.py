"""The order in which plugins are found, which depends on folders and file systems, changes nothing."""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lmflow_core.cli.plugins import as_document
from lmflow_core.plugins import discovery
from lmflow_core.plugins.installed import entry_points
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.registry import Catalogue

_TWICE = """
from lmflow_core.api import TemplateSpec, hookimpl

@hookimpl
def lmflow_register_templates():
    yield TemplateSpec(name="twice", target="somewhere:else", summary="Declared by two.")
"""


def _seen(entries: Sequence[importlib.metadata.EntryPoint], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return all that can be seen of the plugins when they are found in an order."""
    monkeypatch.setattr(discovery, "installed_entry_points", lambda: list(entries))
    catalogue = Catalogue(discovery.load_plugins(PluginPolicy()))
    document = as_document(catalogue)
    for plugin in document["plugins"]:
        del plugin["load_ms"]
    specs = [(record.name, record.specs) for record in catalogue.plugins.records]
    warnings = list(catalogue.plugins.warnings)
    return {"document": document, "specs": specs, "warnings": warnings}


def test_a_shuffled_order_gives_the_same_registry(
    install_plugin: Callable[..., importlib.metadata.EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    contested = [install_plugin(name, _TWICE) for name in ("first", "second")]
    same = [install_plugin("same", _TWICE, distribution=name) for name in ("one-same", "other-same")]
    broken = install_plugin("broken", "import nothing_by_this_name")
    entries = [*entry_points(), *contested, *same, broken]
    found = _seen(entries, monkeypatch)
    assert [conflict["name"] for conflict in found["document"]["conflicts"]] == ["twice"]
    source = random.Random(0)
    for _ in range(10):
        source.shuffle(entries)
        assert _seen(entries, monkeypatch) == found
