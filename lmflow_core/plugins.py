"""Discovery of plugins: each is loaded whole or is absent, and what went wrong is recorded.

A plugin passes these stages in turn: disabled? -> duplicate? -> compatible core? -> import -> register -> known
hooks? -> collect. A failure at any of them, ``SystemExit`` included, drops that plugin alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pluggy

import lmflow_core
from lmflow_core.errors import PluginError, suggestion
from lmflow_core.hookspecs import HOOKS, PROJECT, HookSpecs
from lmflow_core.specs import Spec
from lmflow_core.versions import core_requirement, satisfies

GROUP = "lmflow"
HOOK_PREFIX = "lmflow_register_"
HEAVY_MODULES = ("torch", "transformers", "peft", "datasets", "deepspeed", "tensorflow", "jax", "pandas")
_LONGEST_ERROR = 300


@dataclass
class PluginRecord:
    """What became of one plugin.

    ``status`` is ``ok``, ``disabled``, ``conflict``, ``incompatible`` or ``broken``; ``stage`` is where it
    ended; ``error`` is one line; ``specs`` is empty unless the status is ``ok``.
    """

    name: str
    distribution: str
    version: str
    status: str = "ok"
    stage: str = "loaded"
    error: str | None = None
    details: str | None = None
    location: str | None = None
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

    def provides(self) -> dict[str, list[str]]:
        """Return the names it offers by kind, in the order declared."""
        names: dict[str, list[str]] = {}
        for spec in self.specs:
            names.setdefault(spec.kind, []).append(spec.name)
        return names


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


class _StageError(Exception):
    """A plugin ended at a stage; the message is the one line the user sees."""

    def __init__(self, stage: str, message: str, details: str | None = None) -> None:
        self.stage = stage
        self.details = details
        super().__init__(message)


def short_name(name: str) -> str:
    """Return the plugin's name for a plugin or distribution name: ``lmflow-lora`` and ``lora`` are one."""
    return name.strip().lower().replace("_", "-").removeprefix("lmflow-")


def _names(environment: Mapping[str, str], variable: str) -> list[str]:
    return [short_name(name) for name in environment.get(variable, "").split(",") if name.strip()]


def load_plugins(
    policy: PluginPolicy | None = None,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> PluginSet:
    """Find and load the installed plugins.

    Args:
        policy: which plugins may load; read from the environment when None.
        entry_points: the entry points to load instead of the installed ones.

    Raises:
        PluginError: ``policy.strict`` is set and a plugin is unhealthy.
    """
    policy = PluginPolicy.from_environment() if policy is None else policy
    found = _sorted_entry_points(entry_points)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    owners: dict[str, list[str]] = {}
    for entry in found:
        owners.setdefault(short_name(entry.name), []).append(" ".join(_distribution(entry)))
    records = tuple(_load_one(manager, entry, policy, owners[short_name(entry.name)]) for entry in found)
    loaded = PluginSet(records, tuple(_stale_names(policy, owners)))
    if policy.strict and loaded.unhealthy():
        raise PluginError(_strict_message(loaded.unhealthy()))
    return loaded


def _sorted_entry_points(
    entry_points: Iterable[importlib.metadata.EntryPoint] | None,
) -> list[importlib.metadata.EntryPoint]:
    found = importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points
    return sorted(found, key=lambda entry: (short_name(entry.name), *_distribution(entry), entry.value))


def _distribution(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    if entry.dist is None:
        return "?", "?"
    # A half-removed distribution may have no metadata; both are None then.
    return entry.dist.name or "?", entry.dist.version or "?"


def _stale_names(policy: PluginPolicy, found: Iterable[str]) -> Iterator[str]:
    for name, setting in sorted(policy.named().items()):
        if name not in found:
            yield f"{setting} names the plugin {name!r}, which is not installed.{suggestion(name, found)}"


def _strict_message(records: Sequence[PluginRecord]) -> str:
    causes = "; ".join(f"{record.name} ({record.stage}: {record.error})" for record in records)
    return f"LMFLOW_STRICT_PLUGINS is set and not every plugin is healthy: {causes}"


def _load_one(
    manager: pluggy.PluginManager,
    entry: importlib.metadata.EntryPoint,
    policy: PluginPolicy,
    owners: Sequence[str],
) -> PluginRecord:
    distribution, version = _distribution(entry)
    record = PluginRecord(short_name(entry.name), distribution, version, location=entry.value)
    if refusal := policy.refusal(record.name):
        record.status, record.stage, record.error = "disabled", "disabled", refusal
        return record
    if len(owners) > 1:
        record.status, record.stage = "conflict", "conflict"
        record.error = f"{' and '.join(owners)} declare a plugin {record.name!r}; uninstall all but one"
        return record
    if problem := _incompatibility(entry):
        record.status, record.stage, record.error = "incompatible", "incompatible", problem
        return record
    started = time.perf_counter()
    try:
        _load_into(record, manager, entry)
    except _StageError as error:
        record.status, record.stage, record.error = "broken", error.stage, str(error)
        record.details = error.details
        if manager.has_plugin(record.name):
            manager.unregister(name=record.name)
    record.load_ms = round((time.perf_counter() - started) * 1000, 2)
    return record


def _incompatibility(entry: importlib.metadata.EntryPoint) -> str | None:
    requirement = core_requirement(entry.dist.requires or [] if entry.dist else [])
    if requirement is None or satisfies(lmflow_core.__version__, requirement):
        return None
    return f"needs lmflow-core{requirement}, have {lmflow_core.__version__}"


def _load_into(record: PluginRecord, manager: pluggy.PluginManager, entry: importlib.metadata.EntryPoint) -> None:
    before = set(sys.modules)
    module = _guarded("import", entry.load)
    record.location = getattr(module, "__file__", None) or entry.value
    _refuse_heavy_imports(record, "import", before)
    _guarded("register", lambda: manager.register(module, name=record.name))
    implementations = _known_hooks(manager, module)
    record.hooks = tuple(sorted({hook for hook, _ in implementations}))
    specs = tuple(_collect(implementations))
    _refuse_heavy_imports(record, "collect", before)
    record.specs = specs


def _refuse_heavy_imports(record: PluginRecord, stage: str, before: set[str]) -> None:
    record.heavy_imports = tuple(name for name in HEAVY_MODULES if name in sys.modules and name not in before)
    if record.heavy_imports:
        raise _StageError(
            stage, f"imports {', '.join(record.heavy_imports)} when it loads; import it in the module of a target"
        )


def _guarded(stage: str, action: Callable[[], Any]) -> Any:
    """Run a plugin's code; turn whatever it raises, short of an interrupt, into a stage error."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        text = textwrap.shorten(str(error), _LONGEST_ERROR, placeholder=" …")
        line = f"{type(error).__name__}: {text}" if text else type(error).__name__
        raise _StageError(stage, line, traceback.format_exc()) from error


def _known_hooks(manager: pluggy.PluginManager, module: ModuleType) -> list[tuple[str, pluggy.HookImpl]]:
    """Return the hooks a plugin implements; those it marks optional may belong to a newer core."""
    found = [
        (caller, implementation)
        for caller in manager.get_hookcallers(module) or []
        for implementation in caller.get_hookimpls()
        if implementation.plugin is module
    ]
    if not found:
        raise _StageError("hooks", f"not a plugin: it implements no {HOOK_PREFIX}… hook (is @hookimpl missing?)")
    for caller, implementation in found:
        if not caller.has_spec() and not implementation.optionalhook:
            raise _StageError("hooks", f"unknown hook {caller.name!r}.{suggestion(caller.name, HOOKS)}")
        if _ordered(implementation):
            raise _StageError("hooks", f"{caller.name} asks for an order or wraps others; hooks only declare")
    for name in dir(module):
        if name.startswith(HOOK_PREFIX) and manager.parse_hookimpl_opts(module, name) is None:
            raise _StageError("hooks", f"{name} is not marked with @hookimpl")
    return [(caller.name, implementation) for caller, implementation in found if caller.has_spec()]


def _ordered(implementation: pluggy.HookImpl) -> bool:
    marks = (
        implementation.tryfirst,
        implementation.trylast,
        implementation.hookwrapper,
        implementation.wrapper,
    )
    return any(marks)


def _collect(implementations: Sequence[tuple[str, pluggy.HookImpl]]) -> Iterator[Spec]:
    names: dict[str, set[str]] = {hook: set() for hook, _ in implementations}
    for hook, implementation in sorted(implementations, key=lambda pair: pair[0]):
        specs = _guarded("collect", lambda call=implementation.function: list(call() or ()))  # type: ignore[misc]
        for spec in specs:
            _check_spec(hook, spec, names[hook])
            yield spec


def _check_spec(hook: str, spec: object, names: set[str]) -> None:
    expected = HOOKS[hook]
    if not isinstance(spec, expected):
        raise _StageError("collect", f"{hook} gave a {type(spec).__name__}, not a {expected.__name__}")
    for name in (spec.name, *spec.aliases):
        if name in names:
            raise _StageError("collect", f"{hook} gives the name {name!r} twice")
        names.add(name)
