"""What became of the plugins that were found."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lmflow_core.contracts.spec import Spec


@dataclass
class PluginRecord:
    """What became of one plugin.

    ``status`` is ``ok``, ``disabled``, ``conflict``, ``incompatible`` or ``broken``; ``stage`` is where it
    ended; ``error`` is one line; ``specs`` is empty unless the status is ``ok``; ``module`` is what the entry point
    names.
    """

    name: str
    distribution: str
    version: str
    status: str = "ok"
    stage: str = "loaded"
    error: str | None = None
    details: str | None = None
    location: str | None = None
    module: str = ""
    hooks: tuple[str, ...] = ()
    specs: tuple[Spec, ...] = ()
    load_ms: float = 0.0
    heavy_imports: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether the plugin is in use, or absent because somebody asked for that."""
        return self.status in ("ok", "disabled")

    @property
    def condition(self) -> str:
        """The status, as it stands after "is"."""
        return "in conflict" if self.status == "conflict" else self.status

    def packages(self) -> set[str]:
        """Return the names of the top-level packages that hold its code."""
        modules = [self.module, *(spec.target for spec in self.specs)]
        return {re.split("[.:]", module)[0] for module in modules if module}

    def provides(self) -> dict[str, list[str]]:
        """Return the names it offers by kind, in the order declared."""
        names: dict[str, list[str]] = {}
        for spec in self.specs:
            names.setdefault(spec.kind, []).append(spec.name)
        return names


@dataclass(frozen=True)
class PluginSet:
    """Every plugin that was found, healthy or not, in the order of their names."""

    records: tuple[PluginRecord, ...]
    warnings: tuple[str, ...] = ()

    def healthy(self) -> Iterator[PluginRecord]:
        """Yield the plugins in use."""
        return (record for record in self.records if record.status == "ok")

    def unhealthy(self) -> list[PluginRecord]:
        """Return the plugins that are absent though nobody asked for that."""
        return [record for record in self.records if not record.healthy]

    def digest(self) -> str:
        """Return a short digest of the (distribution, version) pairs in use; ranks and runs compare it."""
        pairs = sorted(f"{record.distribution}=={record.version}" for record in self.healthy())
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()[:16]
