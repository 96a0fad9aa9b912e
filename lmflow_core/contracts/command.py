"""Commands of ``lmflow`` that plugins add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.generation import ModelOpener
from lmflow_core.contracts.spec import Spec
from lmflow_core.errors import SpecError

CORE_COMMANDS = frozenset(
    ("finetune", "generate", "chat", "evaluate", "export", "merge", "data", "plugins", "templates", "doctor")
)


class ChatCommand(Protocol):
    """Target of a ``CommandSpec`` that ``chats``."""

    def __call__(self, open_model: ModelOpener, options: Any) -> None:
        """Run the command. ``open_model`` loads what the command line names; ``options`` is the spec's own."""


@dataclass(frozen=True, kw_only=True)
class CommandSpec(Spec):
    """A command of ``lmflow``; ``target`` is a ``click.Command``. The core's own names are reserved.

    With ``chats`` set the command works with a model that answers: it takes the flags of ``lmflow chat`` beside those
    of ``options``, and ``target`` is a function that satisfies ``ChatCommand``.

    With ``finetunes`` set the command is ``lmflow finetune`` with defaults of its own: ``target`` is a dictionary of
    values by option name, which a run file and flags override.

    Example::

        @hookimpl
        def lmflow_register_commands():
            yield CommandSpec(name="joke", target="lmflow_jokes.command:joke", summary="Tell a joke.")
    """

    kind: ClassVar[str] = "command"
    chats: bool = False
    finetunes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chats and self.finetunes:
            raise SpecError(f"the command {self.name!r} cannot be one that chats and one that finetunes")
        if self.options is not None and not self.chats:
            raise SpecError(f"the command {self.name!r} has options but does not chat; a click command has its own")
        for name in CORE_COMMANDS.intersection((self.name, *self.aliases)):
            raise SpecError(f"the command name {name!r} is reserved for the core")
