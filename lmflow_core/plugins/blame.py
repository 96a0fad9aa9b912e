"""Whose code an unexpected error came from."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.wording import one_line


def failed_plugin(error: BaseException | None, plugins: PluginSet) -> PluginRecord | None:
    """Return the plugin whose code is nearest to where an error, or what it came from, was raised.

    None where only code of others ran.
    """
    owners = {package: record for record in plugins.healthy() for package in record.packages()}
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := _nearest(error.__traceback__, owners):
            return found
        error = error.__cause__ or error.__context__
    return None


def _nearest(trace: TracebackType | None, owners: Mapping[str, PluginRecord]) -> PluginRecord | None:
    found = None
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        found = owners.get(str(module).partition(".")[0], found)
        trace = trace.tb_next
    return found


def failure_of(record: PluginRecord, error: BaseException) -> str:
    """Return the message that a plugin failed in a way it should not."""
    return (
        f"plugin {record.name!r} ({record.distribution} {record.version}) failed: {one_line(error)}. --debug shows "
        f"where; --no-plugin {record.name} leaves it out"
    )
