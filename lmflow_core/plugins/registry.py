"""From names to specs and from specs to code: conflicts, unknown names, and targets that do not fit.

``names`` and ``spec`` never import a target; ``load`` imports one. Every failure is answered by its cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic

from lmflow_core.contracts.hooks import KINDS, SPEC_CLASSES
from lmflow_core.errors import NameConflictError, UnknownNameError, shown, suggestion
from lmflow_core.installing import how_to_install
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.official import official_distributions, official_names
from lmflow_core.plugins.policy import short_name
from lmflow_core.plugins.provided import Provided, S
from lmflow_core.plugins.record import PluginSet
from lmflow_core.plugins.targets import load_target


class Registry(Generic[S]):
    """The names of one kind, over all healthy plugins."""

    def __init__(self, plugins: PluginSet, spec_class: type[S]) -> None:
        self.kind = spec_class.kind
        self._plugins = plugins
        self._by_name: dict[str, list[Provided[S]]] = {}
        self._all: list[Provided[S]] = []
        for record in plugins.healthy():
            for spec in record.specs:
                if isinstance(spec, spec_class):
                    self._add(Provided(spec, record))

    def _add(self, provided: Provided[S]) -> None:
        self._all.append(provided)
        for name in (provided.spec.name, *provided.spec.aliases):
            self._by_name.setdefault(name, []).append(provided)

    def names(self) -> list[str]:
        """Return every name that can be used as it is, without aliases, in order."""
        return sorted(name for name in {p.spec.name for p in self._all} if len(self._by_name[name]) == 1)

    def __iter__(self) -> Iterator[Provided[S]]:
        return iter(self._all)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def conflicts(self) -> dict[str, list[str]]:
        """Return the contested names with the qualified names that end the contest."""
        contested = {name: owners for name, owners in self._by_name.items() if len(owners) > 1}
        return {name: [owner.qualified for owner in owners] for name, owners in sorted(contested.items())}

    def unambiguous(self, provided: Provided[S]) -> str:
        """Return the shortest name that means this spec and no other."""
        return provided.spec.name if len(self._by_name[provided.spec.name]) == 1 else provided.qualified

    def find(self, name: str) -> Provided[S]:
        """Return what a name or a ``plugin:name`` stands for.

        Raises:
            NameConflictError: several plugins provide the name.
            UnknownNameError: no healthy plugin provides it; the message tells why.
        """
        plugin, _, bare = name.rpartition(":")
        owners = [p for p in self._by_name.get(bare, ()) if not plugin or p.plugin.name == short_name(plugin)]
        if len(owners) > 1:
            raise NameConflictError(self._conflict_message(name, owners))
        if not owners:
            raise UnknownNameError(self._unknown_message(plugin, bare))
        return owners[0]

    def spec(self, name: str) -> S:
        """Return the spec of a name; raises as :meth:`find` does."""
        return self.find(name).spec

    def load(self, name: str) -> Any:
        """Import the target of a name and check it against the contract of its kind.

        Raises:
            NameConflictError, UnknownNameError: as :meth:`find` does.
            PluginLoadError: the target cannot be imported or does not fit its contract.
        """
        return load_target(self.find(name))

    def _conflict_message(self, name: str, owners: list[Provided[S]]) -> str:
        listed = " and ".join(f"{o.plugin.name!r} ({o.plugin.distribution} {o.plugin.version})" for o in owners)
        qualified = " or ".join(repr(f"{o.plugin.name}:{name}") for o in owners)
        return (
            f"{self.kind} {name!r} is provided by {listed}. "
            f"Use {qualified}, or disable one: --no-plugin {owners[-1].plugin.name}"
        )

    def _unknown_message(self, plugin: str, name: str) -> str:
        opening = f"unknown {self.kind} {shown(name)}" + (f" of plugin {shown(plugin)}" if plugin else "") + "."
        absence = self._absence_of_plugin(plugin) if plugin else self._absence_of_name(name)
        if absence:
            return f"{opening} {absence}"
        return f"{opening}{self._known_names(name)}{self._failed_plugins()}"

    def _absence_of_name(self, name: str) -> str | None:
        distribution = official_names().get(self.kind, {}).get(name)
        return self._absence_of_plugin(distribution) if distribution else None

    def _absence_of_plugin(self, plugin: str) -> str | None:
        """Tell why a plugin provides nothing, or None when it is healthy.

        Only an official distribution is ever suggested for installation: any other name may be a stranger's.
        """
        record = next((r for r in self._plugins.records if r.name == short_name(plugin)), None)
        if record is None:
            distribution = f"lmflow-{short_name(plugin)}"
            if distribution in official_distributions():
                return f"It is provided by {distribution}, not installed: {how_to_install(distribution)}"
            return (
                f"No plugin {shown(plugin)} is installed.{suggestion(plugin, [r.name for r in self._plugins.records])}"
            )
        if record.status == "ok":
            return None
        if record.status == "disabled":
            return f"It is provided by {record.distribution}, which is {record.error}."
        return (
            f"It is provided by {record.distribution}, which is installed but {record.condition} "
            f"({record.error}; see 'lmflow plugins show {record.name}')."
        )

    def _known_names(self, name: str) -> str:
        known = ", ".join(f"{p.spec.name} ({p.plugin.name})" for p in sorted(self._all, key=_name_of))
        return f"{suggestion(name, self._by_name)} Known {self.kind}s: {known or 'none'}."

    def _failed_plugins(self) -> str:
        failed = [record.name for record in self._plugins.unhealthy()]
        return f" Not loaded, so their names are missing: {', '.join(failed)}." if failed else ""


def _name_of(provided: Provided[Any]) -> str:
    return str(provided.spec.name)


class Catalogue:
    """One registry for each kind, over one set of plugins."""

    def __init__(self, plugins: PluginSet) -> None:
        self.plugins = plugins
        self._registries: dict[str, Registry[Any]] = {
            spec_class.kind: Registry(plugins, spec_class) for spec_class in SPEC_CLASSES
        }

    @classmethod
    def discover(cls) -> Catalogue:
        """Load the installed plugins, as the environment allows."""
        return cls(load_plugins())

    def of_kind(self, kind: str) -> Registry[Any]:
        """Return the registry of a kind such as ``"tuner"``."""
        return self._registries[kind]

    def of(self, spec_class: type[S]) -> Registry[S]:
        """Return the registry of a kind by its spec class."""
        return self._registries[spec_class.kind]

    def conflicts(self) -> list[dict[str, object]]:
        """Return every contested name of every kind."""
        return [
            {"kind": kind, "name": name, "providers": providers}
            for kind in KINDS
            for name, providers in self.of_kind(kind).conflicts().items()
        ]
