"""Training in several processes: the engine that was chosen may start them, before anything heavy is imported."""

from __future__ import annotations

from types import NoneType

from lmflow_core.config.request import Request
from lmflow_core.contracts.engine import CommandLine, Launcher
from lmflow_core.contracts.settings import ModelSettings, OutputSettings, ResumeSettings
from lmflow_core.plugins.targets import load_launcher, returned


def launch(request: Request, arguments: tuple[str, ...]) -> int | None:
    """Let the engine start the processes of the job; return their exit status, or None to train in this process.

    Args:
        request: what was asked.
        arguments: the command line that asked it.

    Raises:
        LmflowError: the processes cannot be started.
    """
    engine = request.components["engine"]
    make = load_launcher(engine.provided)
    if make is None:
        return None
    launcher: Launcher = make(engine.options)
    command = CommandLine(
        arguments,
        request.get(OutputSettings).output,
        request.get(ModelSettings).device,
        request.get(ResumeSettings).resumes,
    )
    status: int | None = returned(launcher.launch(command), int | NoneType, launcher, "launch")
    return status
