"""How an error ends the program: what is told of it, and the exit status.

A process that a launcher started tells it in the file that ``LMFLOW_ERROR_FILE`` names instead, so that what all
processes of a job have to say is told once: JSON with ``message``, ``traceback`` and ``lasting``, whether the same run
would end so again.
"""

from __future__ import annotations

import json
import os
import sys

import click

from lmflow_core.errors import LmflowError, is_out_of_memory
from lmflow_core.plugins.blame import failed_plugin, failure_of
from lmflow_core.plugins.record import PluginSet
from lmflow_core.plugins.wording import full_traceback
from lmflow_core.report import console

_INTERRUPTED = 130
_NO_MEMORY = "memory ran out: close other programs, or ask for less at a time or for a smaller model"


def told_ending(error: BaseException, plugins: PluginSet, debug: bool) -> int | None:
    """Tell of an error and return the exit status; None when it is one of the core's own, which nobody expects.

    Args:
        error: what ended the command.
        plugins: one of them is named where its code failed as none should.
        debug: tell the traceback, too.
    """
    if isinstance(error, click.ClickException):
        error.show()
        return 2 if isinstance(error, click.exceptions.NoArgsIsHelpError) else error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        console.note("interrupted")
        return _INTERRUPTED
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    message = _message(error, plugins)
    if message is None:
        return None
    _tell(error, message, full_traceback(error).rstrip() if debug else "")
    return error.exit_status if isinstance(error, LmflowError) else 1


def _tell(error: BaseException, message: str, traceback: str) -> None:
    if file := os.environ.get("LMFLOW_ERROR_FILE"):
        memory = any(reason is not None and is_out_of_memory(reason) for reason in (error, error.__cause__))
        lasting = isinstance(error, LmflowError) and not memory
        with open(file, "w", encoding="utf-8") as stream:
            json.dump({"message": message, "traceback": traceback, "lasting": lasting}, stream)
        return
    if traceback:
        console.tell(traceback)
    console.note(f"error: {message}")


def _message(error: BaseException, plugins: PluginSet) -> str | None:
    if isinstance(error, LmflowError):
        return str(error)
    if is_out_of_memory(error):
        return _NO_MEMORY
    plugin = failed_plugin(error, plugins)
    return failure_of(plugin, error) if plugin is not None else None
