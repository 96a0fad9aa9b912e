"""Why the processes of a job ended before its end: of all that is known, what came first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

# What a process says that ended because another did.
PEER_LOST = "another process of this job ended, or cannot be reached"

# Later ones follow from earlier ones: the processes of a machine that is lost lose contact, and so on.
_ORDER = ("stopped", "lost", "killed", "told", "crashed", "left")
_LASTING = ("stopped", "told")


@dataclass(frozen=True)
class Cause:
    """How a process, or a machine, ended.

    Attributes:
        kind: ``stopped`` by the user, ``lost`` machine, ``killed`` by a signal, ``told`` an error that the same run
            would meet again, ``crashed``, or ``left`` alone by the others.
        text: for the user.
        status: the exit status of the program.
        rank: of the process; of a machine, that of its first.
        detail: more lines for the user, such as a traceback.
    """

    kind: str
    text: str
    status: int = 1
    rank: int = 0
    detail: str = ""

    @property
    def passes(self) -> bool:
        """Whether the job may well go on when it is started again."""
        return self.kind not in _LASTING

    def as_dict(self) -> dict[str, Any]:
        """Return what :func:`cause_of` takes."""
        return asdict(self)


def cause_of(message: dict[str, Any]) -> Cause:
    """Return a cause that another machine told."""
    kind = str(message.get("kind"))
    texts = {name: str(message.get(name, "")) for name in ("text", "detail")}
    numbers = {name: int(message.get(name, 1)) for name in ("status", "rank")}
    return Cause(kind if kind in _ORDER else "crashed", texts["text"], **numbers, detail=texts["detail"])


def first_cause(causes: Iterable[Cause]) -> Cause:
    """Return the cause that the others follow from."""
    return min(causes, key=lambda cause: (_ORDER.index(cause.kind), cause.rank))
