"""Discovery of plugins: each is loaded whole or is absent, and what went wrong is recorded.

A plugin passes these stages in turn: disabled? -> duplicate? -> compatible core? -> import -> register -> known
hooks? -> collect. A failure at any of them, ``SystemExit`` included, drops that plugin alone.
"""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pluggy

import lmflow_core
from lmflow_core.contracts.hooks import HOOKS, PROJECT, HookSpecs
from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import PluginError, suggestion
from lmflow_core.plugins.policy import PluginPolicy, short_name
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.versions import core_requirement, satisfies

GROUP = "lmflow"
HOOK_PREFIX = "lmflow_register_"
HEAVY_MODULES = ("torch", "transformers", "peft", "datasets", "deepspeed", "tensorflow", "jax", "pandas")
_LONGEST_ERROR = 300


class _StageError(Exception):
    """A plugin ended at a stage; the message is the one line the user sees."""

    def __init__(self, stage: str, message: str, details: str | None = None) -> None:
        self.stage = stage
        self.details = details
        super().__init__(message)


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
