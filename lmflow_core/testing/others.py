"""The other components that a contract compares one with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmflow_core.errors import PluginLoadError
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.registry import Catalogue


def loaded(catalogue: Catalogue, kind: str, but: str = "") -> Iterator[tuple[Provided[Any], Any]]:
    """Yield the installed components of a kind, each with its target; those that cannot be loaded are left out.

    Args:
        catalogue: the plugins there are.
        kind: of the components.
        but: ``plugin:name`` of the one that is left out.
    """
    for provided in catalogue.of_kind(kind):
        if provided.qualified == but:
            continue
        try:
            yield provided, catalogue.of_kind(kind).load(provided.qualified)
        except PluginLoadError:
            continue  # that is told of itself, wherever it is used
