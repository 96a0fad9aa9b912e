"""A spec together with the plugin that provides it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from lmflow_core.contracts.spec import Spec
from lmflow_core.plugins.record import PluginRecord

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Provided(Generic[S]):
    """A spec together with the plugin that provides it."""

    spec: S
    plugin: PluginRecord

    @property
    def qualified(self) -> str:
        """The name that is never contested: ``plugin:name``."""
        return f"{self.plugin.name}:{self.spec.name}"
