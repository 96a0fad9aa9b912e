"""The command line of this process as it was given, for who starts it again in other processes."""

from __future__ import annotations

from contextvars import ContextVar

# What stands behind ``python -m lmflow_core``, the options of every command included.
GIVEN: ContextVar[tuple[str, ...]] = ContextVar("GIVEN", default=())
