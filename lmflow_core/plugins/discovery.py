"""Discovery of plugins: each is loaded whole or is absent, and what went wrong is recorded.

A plugin passes these stages in turn: disabled? -> duplicate? -> compatible core? -> import -> register -> known
hooks? -> collect. A failure at any of them, whatever is raised, drops that plugin alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

import lmflow_core
from lmflow_core.contracts.hooks import PROJECT, HookSpecs
from lmflow_core.errors import PluginError, printable, suggestion
from lmflow_core.plugins.collecting import StageError, collected, guarded, known_hooks
from lmflow_core.plugins.containment import Interrupts, contained_process, watched_plugin
from lmflow_core.plugins.installed import Owner, owner_of
from lmflow_core.plugins.installed import entry_points as installed_entry_points
from lmflow_core.plugins.policy import PluginPolicy, short_name
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.trace import LoadingTrace
from lmflow_core.plugins.versions import core_requirement, satisfies

HEAVY_MODULES = ("torch", "transformers", "peft", "datasets", "deepspeed", "tensorflow", "jax", "pandas")


def load_plugins(
    policy: PluginPolicy | None = None,
    entry_points: Iterable[EntryPoint] | None = None,
) -> PluginSet:
    """Find and load the installed plugins.

    Args:
        policy: which plugins may load; read from the environment when None.
        entry_points: the entry points to load instead of the installed ones.

    Raises:
        PluginError: ``policy.strict`` is set and a plugin is unhealthy.
    """
    policy = PluginPolicy.from_environment() if policy is None else policy
    found = _distinct(installed_entry_points() if entry_points is None else entry_points)
    owners: dict[str, list[Owner]] = {}
    for entry, owner in found:
        owners.setdefault(_name_of(entry), []).append(owner)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    trace = LoadingTrace()
    with contained_process() as interrupts, trace.kept():
        loading = _Loading(manager, policy, interrupts, trace)
        records = tuple(loading.record(entry, owner, owners[_name_of(entry)]) for entry, owner in found)
    loaded = PluginSet(records, tuple(_stale_names(policy, owners)))
    if policy.strict and loaded.unhealthy():
        raise PluginError(_strict_message(loaded.unhealthy()))
    return loaded


def _distinct(found: Iterable[EntryPoint]) -> list[tuple[EntryPoint, Owner]]:
    """Return entry points in the order of their names, each once, with their distributions."""
    owned = [(entry, owner_of(entry)) for entry in found]
    # One plugin is found twice where its sources and an installation of these are on the path.
    once = {(entry.name, entry.value, owner.name, owner.version): (entry, owner) for entry, owner in reversed(owned)}
    return sorted(once.values(), key=lambda pair: (_name_of(pair[0]), str(pair[1]), pair[0].value))


def _name_of(entry: EntryPoint) -> str:
    return printable(short_name(entry.name))


def _stale_names(policy: PluginPolicy, found: Iterable[str]) -> Iterator[str]:
    for name, setting in sorted(policy.named().items()):
        if name not in found:
            yield f"{setting} names the plugin {name!r}, which is not installed.{suggestion(name, found)}"


def _strict_message(records: Sequence[PluginRecord]) -> str:
    causes = "; ".join(f"{record.name} ({record.stage}: {record.error})" for record in records)
    return f"LMFLOW_STRICT_PLUGINS is set and not every plugin is healthy: {causes}"


@dataclass(frozen=True)
class _Loading:
    """Loads plugins one after the other into a manager."""

    manager: pluggy.PluginManager
    policy: PluginPolicy
    interrupts: Interrupts
    trace: LoadingTrace

    def record(self, entry: EntryPoint, owner: Owner, owners: Sequence[Owner]) -> PluginRecord:
        """Load one plugin unless there is a reason not to; return what became of it."""
        record = PluginRecord(_name_of(entry), owner.name, owner.version, location=owner.folder)
        refusal = self._refusal(record.name, owner, owners)
        if refusal is not None:
            record.status, record.stage, record.error = refusal
            return record
        started = time.perf_counter()
        self.trace.loading(record.name)
        try:
            self._load(record, entry)
        except StageError as error:
            record.status, record.stage, record.error = "broken", error.stage, str(error)
            record.details = error.details
            self._forget(record.name)
        record.load_ms = round((time.perf_counter() - started) * 1000, 2)
        return record

    def _refusal(self, name: str, owner: Owner, owners: Sequence[Owner]) -> tuple[str, str, str] | None:
        """Return status, stage and cause where a plugin is not even imported."""
        if refusal := self.policy.refusal(name):
            return "disabled", "disabled", refusal
        if owner.problem is not None:
            return "broken", "metadata", f"{owner.problem} ({owner.folder})"
        if len(owners) > 1:
            alike = len({str(each) for each in owners}) == 1
            listed = " and ".join(f"{each} in {each.folder}" if alike else str(each) for each in owners)
            return "conflict", "conflict", f"{listed} declare a plugin {name!r}; uninstall all but one"
        if problem := _incompatibility(owner):
            return "incompatible", "incompatible", problem
        return None

    def _load(self, record: PluginRecord, entry: EntryPoint) -> None:
        problems: list[str] = []
        before = set(sys.modules)
        with watched_plugin(problems):
            record.module = self._guarded("import", lambda: entry.module)
            module = self._guarded("import", entry.load)
            record.location = self._guarded("import", lambda: _location(module, entry))
            _refuse_heavy_imports(record, "import", before)
            self._guarded("register", lambda: self.manager.register(module, name=record.name))
            hooks = self._guarded("hooks", lambda: known_hooks(self.manager, module))
            record.hooks = tuple(sorted({hook for hook, _ in hooks}))
            specs = self._guarded("collect", lambda: tuple(collected(hooks)))
            _refuse_heavy_imports(record, "collect", before)
        if problems:
            raise StageError("collect", f"{' and '.join(problems)}; do so in a target")
        record.specs = specs

    def _guarded(self, stage: str, action: Callable[[], Any]) -> Any:
        return guarded(stage, self.interrupts, action)

    def _forget(self, name: str) -> None:
        with suppress(StageError):
            if self.manager.has_plugin(name):
                self._guarded("register", lambda: self.manager.unregister(name=name))


def _location(module: Any, entry: EntryPoint) -> str:
    return printable(str(getattr(module, "__file__", None) or entry.value))


def _incompatibility(owner: Owner) -> str | None:
    requirement = core_requirement(owner.requires)
    if requirement is None or satisfies(lmflow_core.__version__, requirement):
        return None
    return f"needs lmflow-core{requirement}, have {lmflow_core.__version__}"


def _refuse_heavy_imports(record: PluginRecord, stage: str, before: set[str]) -> None:
    record.heavy_imports = tuple(name for name in HEAVY_MODULES if name in sys.modules and name not in before)
    for name in record.heavy_imports:
        if getattr(sys.modules[name], "__spec__", None) is None:
            del sys.modules[name]  # made up by the plugin; the real one would never be imported
    if record.heavy_imports:
        raise StageError(
            stage, f"imports {', '.join(record.heavy_imports)} when it loads; import it in the module of a target"
        )
