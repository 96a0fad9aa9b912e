"""Which plugins may load: by flags and environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def short_name(name: str) -> str:
    """Return the plugin's name for a plugin or distribution name: ``lmflow-lora`` and ``lora`` are one."""
    return name.strip().lower().replace("_", "-").removeprefix("lmflow-")


def _names(environment: Mapping[str, str], variable: str) -> list[str]:
    return [short_name(name) for name in environment.get(variable, "").split(",") if name.strip()]


@dataclass(frozen=True)
class PluginPolicy:
    """Which plugins may load. ``only`` restricts to a set when it is not None; ``disabled`` maps name to cause."""

    only: frozenset[str] | None = None
    disabled: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, no_plugin: Sequence[str] = ()
    ) -> PluginPolicy:
        """Read ``LMFLOW_PLUGINS``, ``LMFLOW_DISABLE_PLUGINS``, ``LMFLOW_STRICT_PLUGINS`` and ``--no-plugin``."""
        disabled = dict.fromkeys(_names(environment, "LMFLOW_DISABLE_PLUGINS"), "LMFLOW_DISABLE_PLUGINS")
        disabled |= {short_name(name): "--no-plugin" for name in no_plugin}
        only = frozenset(_names(environment, "LMFLOW_PLUGINS")) if "LMFLOW_PLUGINS" in environment else None
        strict = environment.get("LMFLOW_STRICT_PLUGINS", "") not in ("", "0")
        return cls(only=only, disabled=disabled, strict=strict)

    def refusal(self, name: str) -> str | None:
        """Return what keeps the plugin from loading, or None."""
        if name in self.disabled:
            return f"disabled by {self.disabled[name]}"
        if self.only is not None and name not in self.only:
            return "disabled by LMFLOW_PLUGINS, which does not list it"
        return None

    def named(self) -> dict[str, str]:
        """Return every plugin name the policy mentions, with the setting that mentions it."""
        return dict(self.disabled) | dict.fromkeys(self.only or (), "LMFLOW_PLUGINS")
